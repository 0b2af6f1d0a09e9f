"""The guard: no command beyond a limit whatever comes, a brake for every fault, a state machine that is its table."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as cases
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.limits import JointLimits
from dfplanner_robot.drill import drill
from dfplanner_robot.fakes import KINDS, FakeArm, FakeClock, FakePlanner, FaultInjector, violations
from dfplanner_robot.limits import commanded
from dfplanner_robot.safety import Guard, JointReading, Mode, Outcome, Reason, SafetySettings, Surroundings, Verdict
from dfplanner_robot.states import EXPLAINED, TABLE, Clamp, Event
from dfplanner_robot.trajectory import JointTrajectory, from_actions, slowed

J = 3
NAMES = ("a", "b", "c")


def limits_of(jerk: float = 500.0) -> JointLimits:
    return JointLimits(
        NAMES, np.array([-2.0, -1.0, -3.0]), np.array([2.0, 1.0, 0.5]), np.array([2.0, 1.0, 3.0]),
        np.array([20.0, 10.0, 30.0]), jerk * np.array([1.0, 0.5, 2.0]), np.ones(J),
    )  # fmt: skip


LIMITS = limits_of()
HOME = np.array([0.1, -0.2, -0.5])
DT = 0.02


class Rig:
    """A guard and a fake arm, started; ``tick`` moves both on."""

    def __init__(
        self,
        limits: JointLimits = LIMITS,
        home: np.ndarray = HOME,
        where: Surroundings | None = None,
        **settings: object,
    ) -> None:
        self.clock, self.arm = FakeClock(), FakeArm(limits, home)
        self.guard = Guard(limits, SafetySettings(**{"dt_s": DT, **settings}), where)  # pyright: ignore[reportArgumentType]
        for _ in range(4):
            self.tick()
        self.guard.start(self.clock())

    def tick(self, n: int = 1, read: bool = True, **spoil: object) -> Mode:
        for _ in range(n):
            now = self.clock.advance(DT)
            reading = replace(self.arm.reading(now), **spoil) if read else None  # pyright: ignore[reportArgumentType]
            self.command = self.guard.tick(now, reading)
            self.arm.step(DT, self.command.position)
        return self.guard.mode

    def plan(self, speed: float = 0.5, **changes: object) -> JointTrajectory:
        """Up to ``speed`` and on, for 0.6 s, from where the motion is."""
        state = self.guard._curve.at(self.guard._tau)
        wanted = speed * np.array([1.0, -0.5, 0.5])
        ease = np.minimum(1, np.arange(1, 13) / 6)[:, None]
        actions = (state.v + ease * (wanted - state.v)) / LIMITS.velocity
        made = from_actions(NAMES, self.clock(), state.q, state.v, actions, LIMITS.velocity, 0.05, state.a)
        return replace(made, **changes)  # pyright: ignore[reportArgumentType]

    def propose(self, plan: JointTrajectory | None = None) -> Verdict:
        return self.guard.propose(self.clock(), self.plan() if plan is None else plan)

    def move(self) -> None:
        """In motion, at about 0.5 rad/s."""
        assert self.propose().outcome is Outcome.PASS
        assert self.tick(15) is Mode.ACTIVE and np.abs(self.arm.v).max() > 0.3

    def rest(self) -> Mode:
        """Ticks until the brake is over."""
        for _ in range(200):
            if self.guard.mode is not Mode.BRAKING:
                break
            self.tick()
        before = self.command.position
        self.tick(3)
        assert before is not None and self.command.position is not None
        assert_allclose(self.command.position, before, atol=0)
        assert self.arm.violations(DT) == []
        return self.guard.mode


# What must hold whatever comes


def check(drilled, faults: int) -> None:
    assert drilled.violations == () and len(drilled.faults) == faults
    for f in drilled.faults:
        if KINDS[f.kind].brakes:
            assert f.reason is not None, f
            assert f.to_brake_s <= 0.1 + 1e-9, f
            assert f.mode is EXPLAINED[f.reason][1] or f.mode is Mode.FAULT, f
        else:
            assert f.reason is None and f.mode is Mode.ACTIVE, f
    assert np.mean([f.travelled > 0.1 for f in drilled.faults]) > 0.8  # there was something to brake


def test_faults_one_after_another():
    check(drill(LIMITS, HOME, 2 * len(KINDS), seed=1), 2 * len(KINDS))


@pytest.mark.slow
def test_a_thousand_faults():
    check(drill(LIMITS, HOME, 1000, seed=0), 1000)


@given(st.integers(0, 2**32 - 1), st.sampled_from([30.0, 500.0, 50_000.0]), st.booleans())
@cases(max_examples=25)
def test_no_command_breaks_a_limit_whatever_comes(seed, jerk, at_the_edge):
    """Random plans, good and bad, fast and slow, at random times, with random faults; then silence."""
    rng = np.random.default_rng(seed)
    limits = limits_of(jerk)
    home = np.where(rng.random(J) < 0.5, limits.lower, limits.upper) if at_the_edge else HOME
    rig = Rig(limits, home, resume_after_s=0.04, plan_timeout_s=0.3)
    planner, injector = FakePlanner(limits, rng, share=float(rng.uniform(0.1, 1.2))), FaultInjector(limits, rng)
    for _ in range(60):
        if rng.random() < 0.1:
            injector.end()
            if rng.random() < 0.5:
                injector.begin()
        injector.clock(rig.clock)
        if rig.guard.mode is Mode.FAULT:
            injector.end()
            with suppress(DFPlannerError):  # not sound yet
                rig.guard.reset(rig.clock())
        if rng.random() < 0.4:
            state = rig.guard._curve.at(rig.guard._tau)
            if rng.random() < 0.3:
                planner.forget()
            for plan in injector.plan(planner.plan(rig.clock(), state.q)):
                plan = slowed(plan, float(rng.choice([1.0, 1.0, 0.5, 2.0])))
                rig.guard.propose(rig.clock(), replace(plan, stamp=plan.stamp + rng.choice([0, -0.05, 0.03])))
        reading = injector.reading(rig.arm.reading(rig.clock.advance(DT)))
        command = rig.guard.tick(rig.clock(), reading)
        rig.arm.step(DT, command.position)
        assert command.outcome in Outcome and (command.outcome is Outcome.BRAKE) == (
            command.mode not in (Mode.READY, Mode.ACTIVE)
        )
        assert command.velocity is not None
        assert not limits.exceeded(velocity=command.velocity, acceleration=command.acceleration).any()
    rig.tick(300, read=False)
    assert rig.guard.mode is Mode.FAULT and not np.diff(np.array(rig.arm.commands[-10:]), axis=0).any()
    assert rig.arm.violations(DT) == []
    # and a little inside: what commands may use
    assert (
        violations(
            rig.arm.commands, replace(commanded(limits, inset_rad=0), lower=limits.lower, upper=limits.upper), DT
        )
        == []
    )


@given(st.integers(0, 2**32 - 1), st.floats(0.003, 0.03))
@cases(max_examples=15)
def test_jitter_of_the_ticks_is_not_commanded(seed, jitter):
    """Ticks that come early or late are still commands one tick apart."""
    rng = np.random.default_rng(seed)
    rig = Rig()
    planner = FakePlanner(LIMITS, rng)
    base = rig.clock()
    for k in range(1, 80):
        now = base + k * DT + float(rng.uniform(0, jitter))
        rig.clock.now = now
        if k % 5 == 0:
            rig.guard.propose(now, planner.plan(now, rig.arm.q))
        rig.arm.step(DT, rig.guard.tick(now, rig.arm.reading(now)).position)
    assert rig.arm.violations(DT) == []
    assert rig.guard.counts["tick_gap"] == 0


# The checks of a plan, one by one


def spoilt(rig: Rig, what: str) -> JointTrajectory:
    p = rig.plan()
    assert p.velocities is not None
    q, v = p.positions.copy(), p.velocities.copy()

    def constant(action: list[float], steps: int) -> JointTrajectory:
        return from_actions(NAMES, p.stamp, q[0], v[0], np.tile([action], (steps, 1)), LIMITS.velocity, 0.05)

    many = {
        "NaN velocity": lambda: replace(p, velocities=v * np.nan),
        "infinite time": lambda: replace(p, times=np.append(p.times[:-1], np.inf)),
        "NaN stamp": lambda: replace(p, stamp=np.nan),
        "empty": lambda: replace(p, times=p.times[:0], positions=q[:0], velocities=v[:0], accelerations=None),
        "length": lambda: replace(p, positions=q[:-1]),
        "text": lambda: replace(p, positions=[["x"] * J] * len(q)),
        "no velocities": lambda: replace(p, velocities=None),
        "times": lambda: replace(p, times=p.times[::-1]),
        "too long": lambda: replace(p, times=p.times * 100),
        "missing": lambda: replace(p, names=NAMES[:2], positions=q[:, :2], velocities=v[:, :2], accelerations=None),
        "renamed": lambda: replace(p, names=("a", "b", "x")),
        "doubled": lambda: replace(p, names=("a", "b", "b")),
        "same stamp": lambda: replace(p, stamp=rig.guard._last_stamp),
        "older stamp": lambda: replace(p, stamp=(rig.guard._last_stamp or 0) - 0.1),
        "late": lambda: replace(p, stamp=p.stamp - 0.35),
        "over": lambda: replace(p, stamp=p.stamp - 0.61),
        "ahead": lambda: replace(p, stamp=p.stamp + 0.6),
        "jump": lambda: replace(p, positions=q - np.array([0.4, 0, 0])),
        "beyond": lambda: replace(p, positions=np.append(q[:-1], [[2.3, *q[-1, 1:]]], 0), accelerations=None),
        "no room to stop": lambda: constant([0.5, 0, 0.9], 9),
        "too fast": lambda: constant([3.0, 0, 0], 4),
    }  # fmt: skip
    return many[what]()


REFUSED = {
    "NaN velocity": Reason.NOT_FINITE, "infinite time": Reason.NOT_FINITE, "NaN stamp": Reason.NOT_FINITE,
    "empty": Reason.FORM, "length": Reason.FORM, "text": Reason.FORM, "no velocities": Reason.FORM,
    "times": Reason.FORM, "too long": Reason.FORM, "missing": Reason.NAMES, "renamed": Reason.NAMES,
    "doubled": Reason.NAMES, "same stamp": Reason.ORDER, "older stamp": Reason.ORDER, "late": Reason.LATE,
    "over": Reason.LATE, "ahead": Reason.AHEAD, "jump": Reason.JUMP, "beyond": Reason.POSITION,
    "no room to stop": Reason.POSITION, "too fast": Reason.SPEED,
}  # fmt: skip


@pytest.mark.parametrize("what, reason", REFUSED.items(), ids=REFUSED)
def test_a_bad_plan_is_refused_by_name_and_braked_for(what, reason):
    rig = Rig()
    rig.move()
    plan = spoilt(rig, what)
    if reason is Reason.LATE:
        rig.guard._last_stamp = None  # else the order is wrong already
    verdict = rig.propose(plan)
    assert (verdict.outcome, verdict.reason) == (Outcome.BRAKE, reason) and verdict.detail
    speed = np.abs(rig.command.velocity).max()
    rig.tick()
    assert rig.command.outcome is Outcome.BRAKE and rig.command.reason is reason
    assert rig.guard.counts[reason.value] == 1
    rig.tick(2)
    assert np.abs(rig.command.velocity).max() < speed
    assert rig.rest() is EXPLAINED[reason][1]


def test_joints_in_another_order_pass():
    rig, other = Rig(), Rig()
    plan = rig.plan()
    assert plan.velocities is not None and plan.accelerations is not None
    order = [2, 0, 1]
    mixed = replace(
        plan,
        names=tuple(NAMES[i] for i in order),
        positions=plan.positions[:, order],
        velocities=plan.velocities[:, order],
        accelerations=plan.accelerations[:, order],
    )
    assert rig.propose(mixed).outcome is other.propose().outcome is Outcome.PASS
    assert rig.guard.counts["reordered"] == 1
    rig.tick(10)
    other.tick(10)
    assert_allclose(rig.arm.q, other.arm.q, atol=1e-12)


def test_a_plan_that_passes_is_followed_exactly():
    rig = Rig()
    plan = rig.plan()
    assert rig.propose(plan).outcome is Outcome.PASS
    for _ in range(20):
        rig.tick()
        assert_allclose(rig.command.position, plan.curve.at(rig.clock()).q, atol=1e-9)
        assert_allclose(rig.command.velocity, plan.curve.at(rig.clock()).v, atol=1e-9)


def test_a_plan_that_is_too_fast_is_slowed_and_keeps_its_path():
    rig = Rig()
    plan = slowed(rig.plan(1.0), 0.6)
    verdict = rig.propose(plan)
    assert verdict.outcome is Outcome.CLAMP and Clamp.SLOWED in verdict.clamps
    line = plan.positions[-1] - plan.positions[0]
    while rig.tick() is Mode.ACTIVE:
        assert rig.command.outcome is Outcome.CLAMP and rig.command.position is not None
        off = np.cross(rig.command.position - plan.positions[0], line / np.linalg.norm(line))
        assert np.linalg.norm(off) < 5e-3
    assert rig.guard.counts["slowed"] == rig.guard.counts["clamp"] == 1
    assert rig.rest() is Mode.READY


def test_points_a_little_beyond_an_end_are_clipped():
    rig = Rig(home=np.array([1.9, 0, 0]), plan_timeout_s=None)
    q = np.array([1.9, 0, 0]) + np.linspace(0, 1, 11)[:, None] * np.array([0.09, 0, 0])
    v = np.gradient(q, 0.1, axis=0)
    v[0] = v[-1] = 0
    verdict = rig.propose(JointTrajectory(NAMES, rig.clock(), np.arange(11) * 0.1, q, v))
    assert verdict.outcome is Outcome.CLAMP and Clamp.POSITION in verdict.clamps
    rig.tick(80)
    assert rig.guard.mode is Mode.READY
    assert_allclose(rig.arm.q[0], 1.98, atol=1e-4)


def test_a_plan_that_begins_a_little_off_is_blended():
    rig = Rig()
    rig.move()
    plan = rig.plan()
    verdict = rig.propose(replace(plan, positions=plan.positions + 0.02))
    assert verdict.outcome is Outcome.CLAMP and Clamp.BLENDED in verdict.clamps
    rig.tick(20)
    assert_allclose(rig.command.position, plan.curve.at(rig.clock()).q + 0.02, atol=1e-6)
    assert rig.arm.violations(DT) == []


def test_a_plan_that_begins_later_waits_for_its_time():
    rig = Rig()
    rig.propose(rig.plan(stamp=rig.clock() + 0.2))
    rig.tick(9)
    assert_allclose(rig.command.position, HOME, atol=1e-9)
    rig.tick(20)
    assert np.abs(rig.command.position - HOME).max() > 0.05


# Silence


def test_without_new_plans_it_brakes_in_time_and_goes_on_with_the_next():
    rig = Rig(plan_timeout_s=0.3)
    rig.move()
    assert rig.tick(1) is Mode.BRAKING and rig.guard.reason is Reason.STALE
    assert rig.rest() is Mode.READY
    assert rig.propose().outcome is Outcome.PASS


def test_a_missing_heartbeat_brakes():
    rig = Rig(heartbeat_timeout_s=0.08)
    rig.propose()
    for _ in range(10):
        rig.guard.heartbeat(rig.clock())
        rig.tick()
    assert rig.guard.mode is Mode.ACTIVE
    rig.tick(5)
    assert rig.guard.reason is Reason.SILENT and rig.rest() is Mode.READY


def test_a_plan_that_ends_in_motion_is_braked_from_there_and_one_at_rest_arrives():
    rig = Rig(plan_timeout_s=None)
    rig.propose()
    while rig.tick() is Mode.ACTIVE:
        pass
    assert rig.guard.reason is Reason.ENDED and rig.rest() is Mode.READY
    state = rig.guard._curve.at(rig.guard._tau)
    rig.propose(JointTrajectory(NAMES, rig.clock(), np.array([0.0, 1.0]), np.array([state.q, HOME]), np.zeros((2, J))))
    rig.tick(60)
    assert rig.guard.mode is Mode.READY and rig.guard.reason is None
    assert_allclose(rig.command.position, HOME, atol=1e-9)


def test_what_lies_ahead_ends_at_rest_and_is_what_is_commanded():
    rig = Rig()
    with pytest.raises(DFPlannerError, match="idle"):
        Guard(LIMITS).ahead(0.1)
    rig.move()
    ahead = rig.guard.ahead(0.1)
    assert ahead.stamp == rig.clock() and ahead.curve.ends_at_rest()
    for _ in range(5):
        rig.tick()
        assert_allclose(ahead.curve.at(rig.clock()).q, rig.command.position, atol=1e-9)
    dense = ahead.curve.at(np.arange(0, 60) * DT + ahead.stamp)
    assert not LIMITS.exceeded(dense.q, dense.v, dense.a).any()


# The measured joints


SENSED = {
    "missing joint": ({"names": NAMES[:2], "positions": HOME[:2], "velocities": None}, Reason.SENSOR_FORM),
    "renamed joint": ({"names": ("a", "b", "x")}, Reason.SENSOR_FORM),
    "NaN": ({"positions": HOME * np.nan}, Reason.SENSOR_FORM),
    "NaN velocity": ({"velocities": HOME * np.nan}, Reason.SENSOR_FORM),
    "length": ({"positions": HOME[:2]}, Reason.SENSOR_FORM),
    "jump": ({"positions": HOME - [1.0, 0, 0]}, Reason.SENSOR_JUMP),
    "beyond an end": ({"positions": np.array([2.1, -0.2, -0.5])}, Reason.SENSOR_LIMITS),
    "too fast": ({"velocities": np.array([0, 1.2, 0])}, Reason.SENSOR_LIMITS),
    "from the future": ({"stamp": 1e6}, Reason.SENSOR_AGE),
}


@pytest.mark.parametrize("spoil, reason", SENSED.values(), ids=SENSED)
@pytest.mark.parametrize("moving", [False, True])
def test_an_implausible_reading_brakes_at_once(spoil, reason, moving):
    rig = Rig()
    if moving:
        rig.move()
    rig.tick(1, **spoil)
    assert rig.guard.reason is reason and rig.command.outcome is Outcome.BRAKE and rig.guard.detail
    assert rig.rest() is Mode.FAULT
    with pytest.raises(DFPlannerError, match="cannot resume"):
        rig.guard.resume(rig.clock())
    rig.tick(5)
    rig.guard.reset(rig.clock())
    rig.guard.resume(rig.clock())
    assert rig.propose().outcome is Outcome.PASS


def test_readings_that_stop_brake_and_late_ones_are_left_out():
    rig = Rig()
    rig.move()
    rig.tick(3, read=False)
    assert rig.guard.mode is Mode.ACTIVE
    rig.tick(1, stamp=rig.clock() - 1.0)
    assert rig.guard.senses.old == 1 and rig.guard.mode is Mode.ACTIVE
    rig.tick(1, read=False)
    assert rig.guard.reason is Reason.SENSOR_AGE
    with pytest.raises(DFPlannerError, match="sound readings"):
        rig.rest()
        rig.guard.reset(rig.clock())  # three ticks with readings after rest: sound again
        rig.tick(10, read=False)
        rig.guard.resume(rig.clock())


def test_velocities_that_do_not_add_up_brake():
    rig = Rig()
    rig.propose()
    for _ in range(30):
        if rig.tick(1, velocities=-rig.arm.v) is not Mode.ACTIVE:
            break
    assert rig.guard.reason is Reason.SENSOR_VELOCITY


def test_an_arm_that_does_not_follow_brakes():
    rig = Rig(frozen_s=10.0, tracking_rad=0.05)
    rig.propose()
    for _ in range(40):
        now = rig.clock.advance(DT)
        if rig.guard.tick(now, JointReading(NAMES, now, HOME, np.zeros(J))).mode is not Mode.ACTIVE:
            break
    assert rig.guard.reason is Reason.TRACKING


def test_sensors_that_repeat_are_fine_at_rest_and_not_in_motion():
    rig = Rig()
    for _ in range(50):
        now = rig.clock.advance(DT)
        rig.guard.tick(now, JointReading(NAMES, now, HOME, np.zeros(J)))
    assert rig.guard.mode is Mode.READY
    rig.move()
    q, v, n = rig.arm.q, rig.arm.v, 0
    while rig.guard.mode is Mode.ACTIVE:
        n += 1
        rig.tick(1, positions=q, velocities=v)
    assert rig.guard.reason is Reason.SENSOR_FROZEN and n * DT <= 0.1


# The clock


def test_clock_jumps_brake():
    for by, reason, mode in ((-1.0, Reason.CLOCK_BACK, Mode.FAULT), (1.0, Reason.TICK_GAP, Mode.READY)):
        rig = Rig(plan_timeout_s=5.0)
        rig.move()
        rig.clock.advance(by)
        rig.tick()
        assert rig.guard.reason is reason and rig.rest() is mode
        if mode is Mode.FAULT:
            rig.guard.reset(rig.clock())
            rig.guard.resume(rig.clock())
        assert rig.propose().outcome is Outcome.PASS


def test_ticks_that_are_too_slow_for_the_clock_brake():
    rig = Rig(plan_timeout_s=None)
    rig.move()
    for _ in range(20):
        rig.clock.advance(0.02)
        if rig.tick() is not Mode.ACTIVE:
            break
    assert rig.guard.reason is Reason.TICK_GAP


# The state machine


def test_the_table_is_what_happens():
    """Random operators and planners never cause a change that is not in the table, and every change was seen."""
    seen: set[tuple[Mode, Event]] = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rig = Rig(plan_timeout_s=0.2)
        guard = rig.guard
        seen.add((Mode.IDLE, Event.START))
        for _ in range(150):
            act = rng.choice(
                ["", "", "", "plan", "plan", "still", "bad", "stop", "resume", "reset", "release", "start", "sense"]
            )
            before = guard.mode
            try:
                if act in ("plan", "bad"):
                    rig.propose(rig.plan(0.3 if act == "plan" else np.nan))
                elif act == "still":
                    here = rig.guard._curve.at(rig.guard._tau).q
                    rig.propose(
                        JointTrajectory(NAMES, rig.clock(), np.array([0, 0.1]), np.array([here] * 2), np.zeros((2, J)))
                    )
                elif act and act != "sense":
                    getattr(guard, act)(rig.clock())
            except DFPlannerError:
                assert guard.mode is before
            spoil = {"positions": HOME * np.nan} if act == "sense" and rng.random() < 0.3 else {}
            rig.tick(int(rng.integers(1, 8)) if not spoil else 1, **spoil)
        for _, was, event, then in guard.transitions:
            assert TABLE[was, event] is then
            seen.add((was, event))
    changes = {key for key, then in TABLE.items() if key[0] is not then}
    assert changes <= seen


def test_every_mode_can_be_left_and_every_reason_is_explained():
    assert {mode for mode, _ in TABLE} == set(Mode)
    assert set(EXPLAINED) == set(Reason)
    reached = {Mode.IDLE}
    for _ in Mode:
        reached |= {then for (mode, _), then in TABLE.items() if mode in reached}
    assert reached == set(Mode)


def test_the_documents_figure_is_the_table():
    text = (Path(__file__).parents[2] / "docs" / "safety.md").read_text(encoding="utf-8")
    figure = text.split("```mermaid")[1].split("```")[0]
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+): (.+)$", figure, re.M))
    assert drawn == {(m.name, then.name, event.value) for (m, event), then in TABLE.items()}
    for reason in Reason:
        assert f"| `{reason.value}` |" in text
    for kind in KINDS:
        assert f"| {kind} |" in text


def test_a_stop_waits_for_resume_and_faults_for_reset():
    rig = Rig(resume_after_s=0.1)
    rig.move()
    rig.guard.stop(rig.clock())
    assert rig.rest() is Mode.STOPPED
    rig.tick(20)
    assert rig.guard.mode is Mode.STOPPED  # an operator's stop is not resumed by itself
    assert rig.propose().reason is Reason.NOT_READY
    rig.guard.resume(rig.clock())
    rig.move()
    rig.propose(rig.plan(np.nan))
    assert rig.rest() is Mode.STOPPED
    rig.tick(10)
    assert rig.guard.mode is Mode.READY  # a plan's fault is, where the settings say so


def test_starting_needs_a_sound_arm_at_rest():
    guard, arm = Guard(LIMITS), FakeArm(LIMITS, HOME)
    with pytest.raises(DFPlannerError, match="sound readings"):
        guard.start(0.0)
    for k in range(4):
        command = guard.tick(0.01 * k, replace(arm.reading(0.01 * k), velocities=np.array([0.5, 0, 0])))
        assert command.position is None and command.mode is Mode.IDLE
    with pytest.raises(DFPlannerError, match="bring it to rest"):
        guard.start(0.03)
    assert guard.propose(0.03, Rig().plan()).reason is Reason.NOT_READY


def test_released_it_commands_nothing_and_may_start_elsewhere():
    rig = Rig()
    rig.move()
    with pytest.raises(DFPlannerError, match="cannot release while active"):
        rig.guard.release(rig.clock())
    rig.guard.stop(rig.clock())
    rig.rest()
    rig.guard.release(rig.clock())
    rig.tick(4)
    assert rig.command.position is None
    rig.arm.q = np.array([1.0, 0.5, -2.0])
    rig.tick(6)
    rig.guard.start(rig.clock())
    rig.tick()
    assert_allclose(rig.command.position, [1.0, 0.5, -2.0])


def test_an_arm_moved_by_hand_is_not_resumed():
    rig = Rig(tracking_rad=1.0, sensor_jump_rad=1.0)
    rig.guard.stop(rig.clock())
    rig.tick(2)
    rig.arm.q = rig.arm.q + 0.5
    for _ in range(5):
        now = rig.clock.advance(DT)
        rig.guard.tick(now, JointReading(NAMES, now, HOME + 0.5, np.zeros(J)))
    with pytest.raises(DFPlannerError):
        rig.guard.resume(rig.clock())


def test_an_arm_beyond_the_inset_may_come_back():
    rig = Rig(home=np.array([1.995, 0, 0]))
    assert rig.guard.allowed.upper[0] == pytest.approx(1.995)
    end = np.array([1.5, 0, 0])
    plan = JointTrajectory(NAMES, rig.clock(), np.array([0.0, 1.5]), np.array([[1.995, 0, 0], end]), np.zeros((2, J)))
    assert rig.propose(plan).outcome is Outcome.PASS


# Surroundings


class Wall:
    """Free where the first joint is below 0.5."""

    def free(self, q: np.ndarray) -> np.ndarray:
        return q[:, 0] < 0.5


def test_a_plan_into_a_wall_is_refused_and_one_that_cannot_stop_before_it_is_braked():
    rig = Rig(where=Surroundings(Wall()))
    far = JointTrajectory(
        NAMES, rig.clock(), np.array([0.0, 2.0]), np.array([HOME, [0.6, -0.2, -0.5]]), np.zeros((2, J))
    )
    assert rig.propose(far).reason is Reason.COLLISION
    rig.rest()
    rig.guard.resume(rig.clock())
    # towards the wall, ending right before it, in motion: free as far as it goes, but not the way to stop
    plan = from_actions(
        NAMES,
        rig.clock(),
        HOME,
        np.zeros(J),
        np.minimum(1, np.arange(1, 12) / 6)[:, None] * [[0.48, 0, 0]],
        LIMITS.velocity,
        0.05,
    )
    assert plan.positions[-1, 0] < 0.5 < plan.positions[-1, 0] + 0.96**2 / 2 / 9
    assert rig.propose(plan).outcome is not Outcome.BRAKE
    while rig.tick() is Mode.ACTIVE:
        pass
    assert rig.guard.reason is Reason.BLOCKED and rig.rest() is Mode.READY
    assert np.array(rig.arm.commands)[:, 0].max() < 0.5


def test_the_hand_keeps_to_its_box():
    box = np.array([[-1.0, -1.0, -1.0], [0.3, 1.0, 1.0]])
    rig = Rig(where=Surroundings(None, lambda q: q, box))
    verdict = rig.propose(rig.plan(0.8))
    assert verdict.reason is Reason.WORKSPACE and "outside its box" in verdict.detail
    with pytest.raises(DFPlannerError, match="two corners"):
        Surroundings(None, lambda q: q, box[::-1])
    with pytest.raises(DFPlannerError, match="a hand"):
        Surroundings(None, None, box)


def test_settings_are_checked():
    for bad in ({"gap_s": -1.0}, {"dt_s": 0.0}, {"max_slowdown": 0.5}, {"blends_s": ()}, {"jump_rad": np.nan}):
        with pytest.raises(DFPlannerError):
            SafetySettings(**bad)
    with pytest.raises(DFPlannerError, match="not known"):
        FaultInjector(LIMITS, np.random.default_rng(0), ["earthquake"])


def test_violations_are_found():
    """The meter itself: one bad command among good ones is seen."""
    q = np.tile(HOME, (50, 1))
    assert violations(q, LIMITS, DT) == []
    for bad in (np.array([3.0, 0, 0]), HOME + np.array([0.05, 0, 0])):
        assert violations(np.insert(q, 25, bad, 0), LIMITS, DT)
    turn = 1 - np.cos(9 * np.arange(200)[:, None] * DT)  # begins at rest, but with full acceleration at once
    assert violations(HOME + np.array([0.2, 0, 0]) * turn, limits_of(100.0), DT)[0].startswith("jerk")
    assert violations(np.zeros((0, J)), LIMITS, DT) == []
