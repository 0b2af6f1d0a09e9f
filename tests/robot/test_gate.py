"""The guard as a node has it: whatever is sent to it, it raises nothing, and what it commands keeps the limits."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dfplanner_robot.checks import MOST
from dfplanner_robot.fakes import FakeArm
from dfplanner_robot.nodes.gate import Gate
from dfplanner_robot.rig import HOME, three_joints
from dfplanner_robot.safety import Mode, Outcome, Reason, Surroundings
from dfplanner_robot.settings import JointReading, SafetySettings
from dfplanner_robot.trajectory import JointTrajectory

LIMITS = three_joints()
NAMES, J = LIMITS.names, len(LIMITS)
DT = 0.01


class Guarded:
    """A gate that starts by itself, the arm behind it, and its clock, which counts from 1970."""

    def __init__(self) -> None:
        self.gate = Gate(LIMITS, SafetySettings(dt_s=DT, heartbeat_timeout_s=0.08), Surroundings(), autostart=True)
        self.arm, self.now = FakeArm(LIMITS, HOME), 1.8e9
        self.speed = np.zeros(J)
        self.tick(5)
        assert self.gate.mode is Mode.READY

    def tick(self, n: int = 1) -> None:
        """So many ticks; what is commanded must be finite, within the limits, and no jump."""
        for _ in range(n):
            self.now += DT
            command = self.gate.tick(self.now, self.arm.reading(self.now))
            self.arm.step(DT, command.position)
            if command.position is None or command.velocity is None:
                continue
            state = np.stack([command.position, command.velocity])
            assert np.isfinite(state).all()
            assert (np.abs(command.velocity) <= LIMITS.velocity).all()
            assert ((command.position >= LIMITS.lower) & (command.position <= LIMITS.upper)).all()
            assert (np.abs(command.velocity - self.speed) <= LIMITS.acceleration * DT * 1.01).all()
            self.speed = command.velocity


def sent(guarded: Guarded, positions: Any, times: Any = (1.0,), **others: Any) -> JointTrajectory:
    return JointTrajectory(NAMES, 0.0, np.asarray(times, np.float64), np.asarray(positions, np.float64), **others)


# Whatever comes


EXTREMES = [
    1e308,
    -1e308,
    1e155,
    1e30,
    1e9,
    1e6,
    999999.0,
    1e3,
    3.0,
    1e-9,
    1e-300,
    5e-324,
    -0.0,
    np.nan,
    np.inf,
    -np.inf,
]


def wild(rng: np.random.Generator, guarded: Guarded) -> JointTrajectory:
    """A plan that is nearly good, or bad in one of many ways, or in several."""
    n = int(rng.integers(1, 8))
    times = np.cumsum(rng.choice([1.2e-6, 1e-5, 1e-3, 0.01, 0.05, 0.5, 3.0], n))
    times -= times[0] * (rng.random() < 0.7)
    q = guarded.arm.q + rng.normal(0, rng.choice([0, 1e-3, 0.05, 1.0]), (n, J))
    v = rng.normal(0, rng.choice([0, 0.01, 0.3]), (n, J)) if rng.random() < 0.6 else None
    a = rng.normal(0, rng.choice([0, 0.1, 3.0]), (n, J)) if v is not None and rng.random() < 0.5 else None
    stamp = float(rng.choice(guarded.now + np.array([0, -0.1, 0.2, 0.499, -0.29, 1e9, -guarded.now, -2e9])))
    plan = JointTrajectory(NAMES, stamp, times, q, v, a)
    for _ in range(int(rng.choice([0, 0, 1, 1, 2]))):
        plan = spoilt(rng, plan)
    return plan


def spoilt(rng: np.random.Generator, plan: JointTrajectory) -> JointTrajectory:
    extreme, what = float(rng.choice(EXTREMES)), int(rng.integers(11))
    part = str(rng.choice(["positions", "velocities", "accelerations", "times"]))
    value = getattr(plan, part)
    if what < 4:  # one number, or all of them
        if value is None or not np.size(value) or not np.ndim(value) or np.asarray(value).dtype == object:
            return plan
        value = np.array(value)
        value[(slice(None),) if what == 3 else tuple(rng.integers(value.shape))] = extreme
        return replace(plan, **{part: value})
    ragged = np.empty(2, object)
    ragged[:] = [[0.0], [0.0, 1.0]]
    return [
        lambda: replace(plan, times=np.atleast_1d(plan.times)[::-1]),
        lambda: replace(plan, times=np.zeros(np.size(plan.times))),
        lambda: replace(
            plan, names=[("a", "b"), ("a", "b", "b"), ("a", "b", "x"), (), ("c", "a", "b")][rng.integers(5)]
        ),
        lambda: replace(plan, **{part: np.zeros([(0,), (0, J), (2, J), (1, 2 * J), (1, 1, J)][rng.integers(5)])}),
        lambda: replace(plan, **{part: ragged}),
        lambda: replace(plan, **{part: None if part in ("velocities", "accelerations") else np.array(0.0)}),
        lambda: replace(plan, stamp=extreme),
    ][what - 4]()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_sent_it_raises_nothing_and_commands_keep_the_limits(seed: int, plans: int = 400) -> None:
    rng, guarded, came = np.random.default_rng(seed), Guarded(), Counter[str]()
    for _ in range(plans):
        if guarded.gate.mode not in (Mode.READY, Mode.ACTIVE):
            guarded.tick(20)
            if guarded.gate.mode is Mode.STOPPED:
                guarded.gate.ask("resume", guarded.now)
        if rng.random() < 0.5:
            guarded.gate.beat(guarded.now)
        verdict = guarded.gate.propose(guarded.now, wild(rng, guarded))
        came[verdict.reason.value if verdict.reason else "taken"] += 1
        assert (verdict.outcome is Outcome.BRAKE) == bool(verdict.reason) == bool(verdict.detail)
        assert "cannot be checked" not in verdict.detail, verdict.detail  # every case is known to a check
        guarded.tick(int(rng.integers(1, 6)))
    assert guarded.gate.mode is not Mode.FAULT
    assert came["taken"] > plans // 40
    assert {"not_finite", "form", "names", "position", "speed", "jump", "late", "ahead"} <= came.keys()


@pytest.mark.parametrize("size", [1e6, 1e154, 1.7e308, -1e200, 5.0])
@pytest.mark.parametrize("moving", [False, True])
def test_absurd_positions_alone_are_refused_and_braked_for(size: float, moving: bool) -> None:
    guarded = Guarded()
    if moving:
        guarded.gate.propose(guarded.now, sent(guarded, [HOME + 0.5]))
        guarded.tick(40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is computed from it
        verdict = guarded.gate.propose(guarded.now, sent(guarded, np.full((2, J), size), [1.0, 2.0]))
    assert verdict.reason is (Reason.POSITION if size == 5.0 else Reason.NOT_FINITE)
    guarded.tick(50)
    assert guarded.gate.mode is Mode.STOPPED
    guarded.gate.ask("resume", guarded.now)
    assert guarded.gate.propose(guarded.now, sent(guarded, [HOME])).outcome is not Outcome.BRAKE


def test_what_a_check_cannot_cope_with_is_refused() -> None:
    class Broken:
        def free(self, q: np.ndarray) -> np.ndarray:
            raise ZeroDivisionError("of nothing")

    gate = Gate(LIMITS, SafetySettings(dt_s=DT), Surroundings(Broken()), autostart=True)
    arm, now = FakeArm(LIMITS, HOME), 10.0
    for _ in range(5):
        now += DT
        gate.tick(now, arm.reading(now))
    verdict = gate.propose(now, JointTrajectory(NAMES, 0.0, np.array([1.0]), HOME[None] + 0.1))
    assert verdict.reason is Reason.FORM and "ZeroDivisionError: of nothing" in verdict.detail
    assert gate.mode is Mode.BRAKING
    assert gate.changes[-1] == (Mode.BRAKING, f"form: {verdict.detail}")


@pytest.mark.parametrize("fill", [False, True])
def test_a_plan_of_many_points_is_refused_before_anything_is_computed(fill: bool) -> None:
    for points, reason in ((MOST - 1, None), (MOST + 1, Reason.FORM), (10**6, Reason.FORM)):
        guarded = Guarded()
        s = np.linspace(0, 1, points)[:, None]
        way, slope = 10 * s**3 - 15 * s**4 + 6 * s**5, (30 * s**2 - 60 * s**3 + 30 * s**4) / 2
        plan = sent(guarded, HOME + 0.5 * way, 2 * s[:, 0], velocities=None if fill else np.tile(0.5 * slope, J))
        verdict = guarded.gate.propose(guarded.now, plan)
        assert verdict.reason is reason, verdict.detail
        assert reason is None or f"{points} points" in verdict.detail


# Lapses


@pytest.mark.parametrize("gone", [0.06, 0.15, 0.3, 1.0])
def test_after_a_lapse_it_goes_on_where_the_controller_is(gone: float) -> None:
    guarded = Guarded()
    guarded.gate.propose(guarded.now, sent(guarded, [HOME + 0.5]))
    guarded.tick(45)
    told = guarded.gate.ahead(0.1)
    assert told is not None and np.abs(guarded.speed).max() > 0.3
    guarded.now += gone
    guarded.gate.lapse(guarded.now + DT, told, guarded.now + DT - told.stamp)
    guarded.speed = told.curve.at(guarded.now).v
    guarded.tick()
    assert guarded.gate.mode in (Mode.BRAKING, Mode.READY, Mode.FAULT)
    then = guarded.gate.ahead(0.1)
    assert then is not None
    np.testing.assert_allclose(then.positions[0], told.curve.at(guarded.now).q, atol=1e-2 * (gone < 0.5) + 1e-9)
    np.testing.assert_allclose(then.positions[-1], told.positions[-1], atol=1e-9)


# What it waits for


def test_an_idle_one_says_what_it_waits_for() -> None:
    gate = Gate(LIMITS, SafetySettings(dt_s=DT), Surroundings(), autostart=True)
    now = 10.0
    gate.tick(now, None)
    assert gate.facts()["detail"] == "no reading came"
    gate.tick(now, JointReading(NAMES, now - 3.2, HOME, np.zeros(J)))
    assert gate.facts()["detail"] == "the last reading is 3.200 s old"
    for _ in range(5):
        now += DT
        gate.tick(now, JointReading(NAMES, now, HOME, np.full(J, 0.5)))
    assert "bring it to rest" in str(gate.facts()["detail"])
    gate.autostart = False
    gate.restart()
    for _ in range(5):
        now += DT
        gate.tick(now, JointReading(NAMES, now, HOME, np.zeros(J)))
    assert (gate.mode, gate.facts()["detail"]) == (Mode.IDLE, "waits for start")


def test_others_readings_are_counted_and_left_out() -> None:
    guarded = Guarded()
    finger = JointReading(("finger",), guarded.now, np.array([0.04]))
    assert not guarded.gate.own(finger) and guarded.gate.facts()["readings of other joints"] == 1
    assert guarded.gate.own(JointReading(("a", "finger"), guarded.now, np.zeros(2)))
    guarded.gate.tick(guarded.now + DT, replace(finger, stamp=guarded.now + DT))
    assert guarded.gate.mode is Mode.READY
