"""The core in closed loop with a fake planner, the guard and a fake arm: late plans, lost readings, stops."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as cases
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from dfplanner.types import DFPlannerError, Plan
from dfplanner_envs.arm.limits import JointLimits
from dfplanner_envs.arm.task import reach_task
from dfplanner_robot.checks import conform
from dfplanner_robot.core import Answer, ArmCore, CoreSettings, Request
from dfplanner_robot.fakes import FakeArm, FakeChunks, FakeClock
from dfplanner_robot.planners import Infers, LocalPlanner, remote
from dfplanner_robot.safety import Guard, JointReading, Mode, SafetySettings
from dfplanner_robot.trajectory import JointTrajectory

J = 3
LIMITS = JointLimits(
    ("a", "b", "c"), -2 * np.ones(J), 2 * np.ones(J), 2 * np.ones(J), 12 * np.ones(J), 900 * np.ones(J), np.ones(J)
)
ARM = reach_task().arm.limits
GOAL = np.array([0.8, -0.6, 0.4])


class World:
    """Core, guard and arm at 100 Hz; an answer comes ``delay`` ticks after it was asked for."""

    def __init__(
        self, delay: int = 3, drop: float = 0.0, noise: float = 0.0, late_readings: int = 0, seed: int = 0
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.clock = FakeClock()
        self.arm = FakeArm(LIMITS, np.zeros(J), noise=(noise, noise), rng=self.rng)
        self.guard = Guard(LIMITS, SafetySettings())
        self.core, self.planner = ArmCore(LIMITS, None), FakeChunks(LIMITS)
        self.delay, self.drop = delay, drop
        self.under_way: tuple[int, Request] | None = None
        self.queue: deque[JointReading] = deque(maxlen=late_readings + 1)
        self.given: list[JointTrajectory] = []
        self.ticks = 0
        for _ in range(4):
            self.guard.tick(self.clock.advance(0.01), self.arm.reading(self.clock()))
        self.guard.start(self.clock())

    def tick(self) -> None:
        now = self.clock.advance(0.01)
        self.ticks += 1
        reading = self.arm.reading(now)
        self.queue.append(reading)
        if self.rng.random() >= self.drop:
            self.core.read(self.queue[0])
        if self.core.due(now) and self.under_way is None and (request := self.core.ask(now)):
            self.under_way = self.ticks + self.delay, request
        if self.under_way is not None and self.ticks >= self.under_way[0]:
            request, self.under_way = self.under_way[1], None
            answer = self.planner.plan(request.observation, request.goal, request.committed, request.elapsed)
            if trajectory := self.core.adopt(now, request, answer):
                self.given.append(trajectory)
                self.guard.propose(now, trajectory)
        self.arm.step(0.01, self.guard.tick(now, reading).position)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 100)):
            self.tick()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"delay": 0},
        {"delay": 10},
        {"drop": 0.2},
        {"noise": 0.002},
        {"late_readings": 10},
        {"drop": 0.2, "noise": 0.002, "late_readings": 10},
    ],
    ids=lambda how: " ".join(f"{k} {v}" for k, v in how.items()) or "plain",
)
def test_it_reaches_the_goal_without_a_clamp_or_a_limit(how):
    world = World(**how)
    world.core.set_goal(GOAL)
    world.run(4.0)
    assert np.abs(world.arm.q - GOAL).max() < 0.03
    assert world.arm.violations(0.01) == []
    counts = world.guard.counts
    assert counts["brake"] == 0 and world.core.counts["anew"] == 0 and counts["pass"] > 20
    if not how.get("noise") and how.get("delay", 3):  # with nothing committed, the measured lag shows in the join
        assert counts["clamp"] == 0


def test_chunks_join_without_a_jump_whatever_the_delay():
    """At every border the new trajectory has the old one's position, velocity and acceleration."""
    for delay in (0, 2, 5, 9):
        world = World(delay=delay)
        world.core.set_goal(GOAL)
        world.run(1.5)
        assert len(world.given) > 5
        for old, new in zip(world.given[1:], world.given[2:], strict=False):
            begin = new.stamp
            assert_allclose(new.curve.at(begin).q, old.curve.at(begin).q, atol=1e-9)
            assert_allclose(new.curve.at(begin).v, old.curve.at(begin).v, atol=1e-9)
        commanded = np.diff(np.array(world.arm.commands), axis=0) / 0.01
        assert np.abs(np.diff(commanded, axis=0)).max() < 0.05  # rad/s between ticks: 5 rad/s²


def test_what_is_executed_meanwhile_is_committed():
    world = World(delay=10)
    world.core.set_goal(GOAL)
    world.run(2.0)
    committed = [c for c, elapsed in world.planner.asked if elapsed is not None]
    assert world.planner.asked[0] == (0, None) and min(committed[3:]) >= 2
    assert world.core.expected_s >= 0.1 and world.core.counts["late"] <= 1


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 12), min_size=5, max_size=20))
@cases(max_examples=10)
def test_random_delays_break_nothing(seed, delays):
    world = World(seed=seed)
    world.core.set_goal(GOAL)
    for delay in delays:
        world.delay = delay
        world.run(0.15)
    assert world.arm.violations(0.01) == []
    assert world.guard.counts["not_finite"] == world.guard.counts["form"] == world.guard.counts["order"] == 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
@cases(max_examples=40)
def test_whatever_a_model_asks_for_a_guard_need_not_slow(seed: int, committed: int):
    rng, core = np.random.default_rng(seed), ArmCore(ARM, None)
    wild, s = rng.choice([-2.0, -1.0, 0.0, 1.0, 2.0], (committed + 10, 7)), core.settings
    q, v = rng.uniform(ARM.lower + 0.5, ARM.upper - 0.5), np.zeros(7)
    held = 0.05 * np.cumsum(rng.uniform(-1, 1, (committed, 7)), axis=0)
    request = Request(0.0, np.append(q, v), q, committed, 0, q, v, np.zeros(7), held)
    actions = core._able(request, wild)
    assert_allclose(actions[:committed], held, err_msg="what is held stays")
    peaks = core._path(request, actions).curve.peaks()
    assert (peaks.velocity <= 0.95 * ARM.velocity).all() and (peaks.acceleration <= 0.45 * ARM.acceleration).all()
    assert (peaks.lower >= ARM.lower + 0.02).all() and (peaks.upper <= ARM.upper - 0.02).all()
    gentle = np.tile(0.1 * np.minimum(1.0, np.arange(1, 11) / 8)[:, None], (1, 7))
    rest = Request(0.0, np.append(q, v), q, 0, None, q, v, np.zeros(7))
    if (q < ARM.upper - 1.0).all():
        assert_allclose(core._able(rest, gentle), gentle, err_msg="what it can follow stays")
    assert s.push_share < 0.45


def test_every_trajectory_ends_at_rest():
    world = World()
    world.core.set_goal(GOAL)
    world.run(0.5)
    assert all(t.curve.ends_at_rest() for t in world.given)
    world.core.set_goal(None)
    world.run(2.0)
    assert world.guard.mode is Mode.READY and np.abs(world.arm.v).max() < 1e-3


def test_after_a_stop_it_plans_from_where_the_arm_is():
    world = World()
    world.core.set_goal(GOAL)
    world.run(0.6)
    world.guard.stop(world.clock())
    world.run(1.0)
    assert world.guard.mode is Mode.STOPPED and np.abs(world.arm.q - GOAL).max() > 0.1
    world.guard.resume(world.clock())
    world.run(4.0)
    assert world.core.counts["anew"] >= 1
    assert np.abs(world.arm.q - GOAL).max() < 0.03 and world.arm.violations(0.01) == []


def test_readings_are_taken_in_any_order_and_broken_ones_left():
    core = ArmCore(LIMITS, None)
    q, v = np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.5, 0.0])
    assert core.read(
        JointReading(("c", "gripper", "a", "b"), 1.0, np.array([0.3, 9, 0.1, 0.2]), np.array([0, 9, 0, 0.5]))
    )
    seen = core.observation(1.0)
    assert seen is not None
    assert_allclose(seen, [*q, *v])
    good = JointReading(LIMITS.names, 2.0, q, v)
    for bad in (
        replace(good, names=("a", "b", "d")),
        replace(good, positions=q * np.nan),
        replace(good, positions=q[:2]),
        replace(good, stamp=np.nan),
    ):
        assert not core.read(bad)
    assert not core.read(replace(good, stamp=0.9))
    assert not core.read(JointReading(("finger",), 2.0, np.array([0.04])))
    assert core.counts == {"read": 1, "bad": 4, "old": 1, "foreign": 1}


def test_an_arm_whose_clock_began_anew_is_known_from_there():
    core = ArmCore(LIMITS, None)
    core.read(JointReading(LIMITS.names, 100.0, np.ones(J), np.zeros(J)))
    assert core.read(JointReading(LIMITS.names, 3.0, np.zeros(J), np.zeros(J)))
    assert core.trajectory is None
    state = core.estimate(3.0)
    assert state is not None and not state[0].any()


def test_without_velocities_they_follow_from_two_readings():
    core = ArmCore(LIMITS, None)
    core.read(JointReading(LIMITS.names, 1.0, np.zeros(J)))
    core.read(JointReading(LIMITS.names, 1.1, np.array([0.1, 0, 0])))
    state = core.estimate(1.2)
    assert state is not None
    assert_allclose(state[0], [0.2, 0, 0])  # held for 0.1 s: it went on
    assert core.estimate(2.0) is None


def test_observations_begin_with_the_hand():
    core = ArmCore(LIMITS, lambda q: 10 * q)
    core.read(JointReading(LIMITS.names, 1.0, np.ones(J), np.zeros(J)))
    seen = core.observation(1.0)
    assert seen is not None
    assert_allclose(seen, [10, 10, 10, 1, 1, 1, 0, 0, 0])


def test_no_goal_or_no_reading_is_no_request():
    core = ArmCore(LIMITS, None)
    assert not core.due(1.0) and core.ask(1.0) is None
    core.set_goal(GOAL)
    assert core.due(1.0) and core.ask(1.0) is None and core.counts["blind"] == 1
    with pytest.raises(DFPlannerError, match="finite"):
        core.set_goal([np.nan])
    with pytest.raises(DFPlannerError, match="dt_s"):
        CoreSettings(dt_s=0.0)


def asked(core: ArmCore, now: float = 1.0) -> Request:
    core.set_goal(GOAL)
    core.read(JointReading(LIMITS.names, now, np.zeros(J), np.zeros(J)))
    request = core.ask(now)
    assert request is not None
    return request


def test_bad_answers_are_told_and_the_next_may_be_asked_for():
    for actions in (np.zeros((4, 2)), np.full((4, J), np.nan), np.zeros(J)):
        core = ArmCore(LIMITS, None)
        request = asked(core)
        assert not core.due(1.2)
        with pytest.raises(DFPlannerError, match="expected finite"):
            core.adopt(1.05, request, Answer(actions))
        assert core.due(1.2) and core.trajectory is None and core.counts["refused"] == 1


def test_answers_that_are_too_late_or_not_the_latest_are_dropped():
    core = ArmCore(LIMITS, None)
    core.set_goal(GOAL)
    core.read(JointReading(LIMITS.names, 1.0, np.zeros(J), np.full(J, 0.5)))
    request = core.ask(1.0)
    assert request is not None
    assert core.adopt(1.2, request, Answer(np.zeros((4, J)))) is None
    request = asked(core, 2.0)
    again = core.ask(2.01)
    assert again is not None
    assert core.adopt(2.02, request, Answer(np.zeros((4, J)))) is None
    assert core.adopt(2.02, again, Answer(np.zeros((4, J)))) is not None
    assert core.counts["expired"] == 2
    core.failed(again)
    assert core.due(2.2)


def test_from_rest_a_plan_that_took_long_begins_when_it_comes():
    core = ArmCore(LIMITS, None)
    found = core.adopt(3.0, asked(core), Answer(np.full((4, J), 0.1)))
    assert found is not None and found.stamp == 3.0 and not found.positions[0].any()


def test_step_asks_plans_and_adopts():
    core = ArmCore(LIMITS, None)
    core.set_goal(GOAL)
    core.read(JointReading(LIMITS.names, 1.0, np.zeros(J), np.zeros(J)))
    planner = FakeChunks(LIMITS)
    first = core.step(1.0, planner)
    assert first is not None and core.step(1.01, planner) is None
    second = core.step(1.1, planner)
    assert second is not None and second.stamp == pytest.approx(1.1)


class Recorded:
    """A planner that notes what it was asked, and knows its first two chunks of three."""

    def __init__(self) -> None:
        self.asked: list[tuple[Plan | None, int, int]] = []

    def plan(self, history, objective, previous, committed, generator, *, elapsed):
        self.asked.append((previous, committed, elapsed))
        assert history.shape == (1, 6)
        levels = np.zeros((1, 4, 2), np.int64)
        levels[0, 3, 1] = 1000
        actions = np.arange(6 * J, dtype=np.float32).reshape(1, 6, J)
        return Plan(
            np.zeros((1, 4, 6), np.float32),
            actions,
            levels,
            np.zeros(1, np.float32),
            2,
            0.05,
            np.zeros((1, 4, 6), np.float32),
        )


def test_a_local_planner_gives_only_what_is_denoised_and_continues_its_plan():
    inner = Recorded()
    planner = LocalPlanner(inner)
    for elapsed, committed in ((3, 2), (None, 0), (2, 1)):
        answer = planner.plan(np.zeros(6), GOAL, committed, elapsed)
        assert answer.actions.shape == (4, J) and answer.states is not None and answer.states.shape == (4, 6)
    assert [(p is None, c, e) for p, c, e in inner.asked] == [(True, 0, 0), (True, 0, 0), (False, 1, 2)]


@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-9, 1e-6])
def test_an_arm_at_its_goal_is_given_a_plan_that_a_guard_takes(off: float):
    core, q = ArmCore(LIMITS, None), np.zeros(J)
    core.set_goal(q + off)
    core.read(JointReading(LIMITS.names, 1.0, q, np.zeros(J)))
    trajectory = core.step(1.0, FakeChunks(LIMITS))
    assert trajectory is not None and trajectory.curve.ends_at_rest()
    assert np.diff(trajectory.times).min() > 1e-4
    conform(trajectory, LIMITS.names, SafetySettings())


def test_a_server_is_told_what_is_continued():
    sent = []

    def infer(observation, goal, **how):
        sent.append(how)
        return SimpleNamespace(actions=np.zeros((4, J)), states=None, levels=None)

    for committed, elapsed in ((0, None), (2, 3)):
        request = Request(1.0, np.zeros(6), GOAL, committed, elapsed, *np.zeros((3, J)))
        remote(cast(Infers, SimpleNamespace(infer=infer)), request)
    assert sent == [{"committed": 0, "elapsed": None, "reset": True}, {"committed": 2, "elapsed": 3, "reset": False}]
