"""The planner node's decisions, without ROS: the planner answers at once, and the arm does as it is told."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the worker is asked through websockets")
pytest.importorskip("msgpack", reason="the worker is asked in msgpack")

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.task import reach_task
from dfplanner_robot.checks import Surroundings
from dfplanner_robot.core import Answer, ArmCore, CoreSettings, Request
from dfplanner_robot.fakes import FakeArm, FakeChunks, FakeClock
from dfplanner_robot.nodes.gate import Gate
from dfplanner_robot.nodes.goals import at_rest, hand_of, in_frame, reachable
from dfplanner_robot.nodes.patience import CUTS, LONGEST_S, Patience
from dfplanner_robot.nodes.pilot import Move, Pilot, to_rest
from dfplanner_robot.nodes.trail import STUCK_S
from dfplanner_robot.nodes.worker import Outcome, Worker
from dfplanner_robot.settings import JointReading, SafetySettings
from dfplanner_robot.trajectory import JointTrajectory

TASK = reach_task()
LIMITS = TASK.arm.limits
PLACE = np.array([-0.11, 0.28, 0.62])
GOAL = reachable(TASK, PLACE)
TICK_S = 0.01


@dataclass
class AtOnce:
    """A worker whose answers are there with the next tick; ``down``: it fails."""

    planner: FakeChunks = field(default_factory=lambda: FakeChunks(LIMITS))
    outcomes: deque[Outcome] = field(default_factory=deque)
    state: str = "ready"
    busy: bool = False
    goal_size: int = 7
    down: bool = False

    def ask(self, request: Request) -> bool:
        if self.down:
            self.outcomes.append(Outcome(request, 0.0, error="it is down"))
        else:
            answer = self.planner.plan(request.observation, request.goal, request.committed, request.elapsed)
            self.outcomes.append(Outcome(request, 0.004, answer))
        return True


class World:
    """A pilot and an arm, which follows what is published."""

    def __init__(self) -> None:
        self.clock, self.arm, self.worker = FakeClock(), FakeArm(LIMITS, TASK.arm.rest), AtOnce()
        core = ArmCore(LIMITS, TASK.chain.hand, CoreSettings(brake_share=0.3))
        self.pilot = Pilot(core, cast(Worker, self.worker), 0.02)
        self.moves: list[Move] = []
        self.command: JointTrajectory | None = None

    def take(self, move: Move | None) -> Move | None:
        """What is published, if anything is."""
        if move is not None:
            self.moves.append(move)
            self.command = move.trajectory
        return move

    def run(self, seconds: float) -> int:
        """How many trajectories were published in so many seconds."""
        before = len(self.moves)
        for _ in range(round(seconds / TICK_S)):
            now = self.clock.advance(TICK_S)
            self.pilot.read(self.arm.reading(now))
            self.take(self.pilot.tick(now))
            self.arm.step(TICK_S, None if self.command is None else self.command.curve.at(now).q)
        return len(self.moves) - before

    def brake(self) -> None:
        """What a guard does; it takes no plans until it says it is ready."""
        self.pilot.guard_says("braking", self.clock())
        q, v, moves = self.arm.q, self.arm.v, np.abs(self.arm.v).max() > 1e-3
        self.command = to_rest(LIMITS, CoreSettings(), self.clock(), q, v, np.zeros_like(v)) if moves else None

    @property
    def distance(self) -> float:
        return float(np.linalg.norm(TASK.chain.hand(self.arm.q) - PLACE))

    @property
    def rests(self) -> bool:
        return bool(np.abs(self.arm.v).max() < 1e-3)


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_published_without_a_goal_and_nothing_after_arrival(world: World) -> None:
    assert world.run(0.5) == 0 and world.pilot.phase == "waiting"
    world.pilot.set_goal(GOAL)
    assert world.run(8.0) > 10
    assert world.pilot.phase == "arrived" and world.distance < 0.02 and world.rests
    assert world.moves[-1].answer is None, "the last thing published is a stop"
    assert world.run(2.0) == 0
    assert world.arm.violations(TICK_S) == []


def test_an_arm_that_is_pushed_off_its_goal_goes_back_but_not_for_a_little(world: World) -> None:
    world.pilot.set_goal(GOAL)
    world.run(8.0)
    world.command = None
    far = world.distance
    while far < 0.025:  # within 1.5 tolerances it stays
        world.arm.q = world.arm.q + np.array([0.005, *np.zeros(6)])
        far = world.distance
    assert world.run(0.5) == 0 and world.pilot.phase == "arrived"
    world.arm.q = world.arm.q + np.array([0.2, *np.zeros(6)])
    assert world.run(4.0) > 2
    assert world.pilot.phase == "arrived" and world.distance < 0.02


def test_stop_brakes_within_limits_and_resume_goes_on(world: World) -> None:
    world.pilot.set_goal(GOAL)
    world.run(1.5)
    assert not world.rests
    move = world.take(world.pilot.stop(world.clock()))
    assert move is not None and move.answer is None and move.trajectory.curve.ends_at_rest()
    assert world.run(1.0) == 0 and world.rests and world.pilot.phase == "stopped" and world.distance > 0.1
    assert world.pilot.stop(world.clock()) is None, "an arm at rest needs no stop"
    world.pilot.resume()
    assert world.run(8.0) > 10 and world.pilot.phase == "arrived"
    assert world.arm.violations(TICK_S) == []


def test_while_the_guard_takes_no_plans_none_are_made_and_then_they_begin_where_the_arm_is(world: World) -> None:
    world.pilot.set_goal(GOAL)
    world.run(1.0)
    world.pilot.guard_says("braking", world.clock())
    assert world.pilot.core.trajectory is None and world.pilot.phase == "held"
    asked = len(world.worker.planner.asked)
    world.run(1.0)
    assert len(world.worker.planner.asked) == asked
    for mode in ("stopped", "ready"):
        world.pilot.guard_says(mode, world.clock())
    world.run(0.05)
    assert world.worker.planner.asked[asked] == (0, None), "it continues nothing"
    world.pilot.guard_says("active", world.clock())
    assert world.pilot.core.trajectory is not None
    world.pilot.guard_says("ready", world.clock())  # it braked, so shortly that nothing was heard of it
    assert world.pilot.core.trajectory is None


def refused(world: World, seconds: float) -> list[float]:
    """When plans were published that a guard refused, each at once."""
    when = []
    for _ in range(round(seconds / TICK_S)):
        if world.run(TICK_S):
            when.append(world.clock())
            world.command = None
            for mode in ("braking", "ready"):
                world.pilot.guard_says(mode, world.clock())
    return when


def test_plans_that_are_refused_again_and_again_are_made_more_and_more_rarely(world: World) -> None:
    world.pilot.guard_says("ready", world.clock())
    world.pilot.set_goal(GOAL)
    gaps = np.diff(refused(world, 20.0))
    assert np.all(gaps[:CUTS] < 0.1) and np.all(np.diff(gaps[CUTS:]) > -0.05), "first none waits, then each longer"
    assert LONGEST_S <= gaps[-1] < LONGEST_S + 0.1 and world.pilot.phase == "blocked"
    world.pilot.guard_says("braking", world.clock())
    assert world.pilot.phase == "blocked", "its braking is part of it"
    world.pilot.guard_says("stopped", world.clock())
    assert world.pilot.phase == "held", "that is not"
    world.pilot.guard_says("ready", world.clock())
    for again in (world.pilot.resume, lambda: world.pilot.set_goal(GOAL)):
        again()
        assert world.pilot.phase == "planning" and len(refused(world, 0.5)) > CUTS
    world.run(8.0)  # not refused any more, it goes on by itself
    assert world.pilot.phase == "arrived" and world.distance < 0.02
    assert world.arm.violations(TICK_S) == []


class Wall:
    """Postures are free short of a value of the first joint."""

    at = 1.0

    def free(self, q: np.ndarray) -> np.ndarray:
        return q[:, 0] < self.at


def test_who_comes_no_further_goes_back_where_it_came_and_tries_again(world: World) -> None:
    wall, settings = Wall(), SafetySettings(heartbeat_timeout_s=None)
    gate = Gate(LIMITS, settings, Surroundings(wall), autostart=True)
    world.pilot.set_goal(GOAL)
    assert GOAL.posture[0] > wall.at > world.arm.q[0]
    phases, first, at = [], [], np.inf
    for _ in range(round(30.0 / TICK_S)):
        now = world.clock.advance(TICK_S)
        reading = world.arm.reading(now)
        world.pilot.read(reading)
        command = gate.tick(now, reading)
        while gate.changes:
            world.pilot.guard_says(gate.changes.popleft()[0].value, now)
        if (move := world.pilot.tick(now)) is not None:
            gate.propose(now, move.trajectory)
        world.arm.step(TICK_S, command.position)
        phases.append(world.pilot.phase)
        first.append(world.arm.q[0])
        at = min(at, now) if world.pilot.trail.tries >= 3 else at
        if now >= at + 1.0:
            wall.at = 9.0  # it is taken away
    assert max(first[: phases.index("backing")]) > 0.45, "it came to the wall"
    back = [q for q, phase in zip(first, phases, strict=True) if phase == "backing"]
    assert max(back) - min(back) > 0.4, "and then went back from it"
    assert phases[-1] == "arrived" and world.distance < 0.02
    assert world.arm.violations(TICK_S) == [] and gate.mode.value == "ready"


def test_one_that_may_not_go_back_stays(world: World) -> None:
    world.pilot.backs_off = False
    world.pilot.guard_says("ready", world.clock())
    world.pilot.set_goal(GOAL)
    world.run(1.5)
    world.brake()
    world.run(1.0)
    before = world.arm.q.copy()
    world.pilot.guard_says("ready", world.clock())
    refused(world, 5.0)
    assert np.abs(world.arm.q - before).max() < 0.1 and world.pilot.phase == "blocked"
    assert world.pilot.trail.tries == 0


def test_who_is_planned_for_and_does_not_move_goes_back_and_is_then_asked_for_from_rest(world: World) -> None:
    world.pilot.set_goal(GOAL)
    world.run(1.5)
    plan, world.worker.planner.plan = world.worker.planner.plan, stands  # type: ignore[method-assign]
    before = world.arm.q.copy()
    world.run(STUCK_S + 2.0)
    assert np.abs(world.arm.q - before).max() > 0.2 and world.pilot.trail.tries == 1
    world.worker.planner.plan = plan  # type: ignore[method-assign]
    asked = len(world.worker.planner.asked)
    world.pilot.trail.turn()
    world.run(9.0)
    assert world.worker.planner.asked[asked] == (0, None), "the worker knows nothing of the way back"
    assert world.pilot.phase == "arrived" and world.distance < 0.02
    assert world.arm.violations(TICK_S) == []


def stands(observation: Any, goal: Any, committed: int, elapsed: int | None) -> Answer:
    """A plan to stay."""
    return Answer(np.zeros((committed + 6, 7)))


def test_patience_is_new_when_the_arm_came_nearer_and_after_a_quiet_while() -> None:
    patience = Patience()
    for distance, blocked in ((0.5, True), (0.495, True), (0.48, False), (0.6, False), (np.nan, False)):
        patience.at(distance)
        assert patience.blocked == (blocked and distance < 0.5)
        for _ in range(CUTS + 1 if blocked else 1):
            patience.cut(1.0)
    patience.cut(100.0)
    assert not patience.blocked and patience.cuts == 1


def test_a_failed_request_is_told_and_the_next_is_made(world: World) -> None:
    world.pilot.set_goal(GOAL)
    world.worker.down = True
    assert world.run(1.0) == 0 and world.pilot.error == "it is down" and not world.pilot.times
    world.worker.down = False
    assert world.run(0.5) > 2 and world.pilot.error == ""


def test_another_worker_takes_over_without_a_gap(world: World) -> None:
    world.pilot.set_goal(GOAL)
    world.run(1.0)
    world.worker.outcomes.clear()  # a request that will never be answered
    fresh = AtOnce(goal_size=3)
    assert world.pilot.swap(cast(Worker, fresh)) is cast(Any, world.worker)
    assert np.array_equal(cast(Any, world.pilot.core.goal), PLACE), "each is told the goal in its own way"
    fresh.goal_size = 7
    world.pilot.set_goal(GOAL)
    world.worker = fresh
    assert world.run(8.0) > 10 and world.pilot.phase == "arrived" and fresh.planner.asked
    assert world.arm.violations(TICK_S) == []


def test_reset_forgets_goal_and_readings(world: World) -> None:
    world.pilot.set_goal(GOAL)
    world.run(1.0)
    assert world.take(world.pilot.reset(world.clock())) is not None
    assert world.pilot.goal is None and world.pilot.core.estimate(world.clock()) is None
    assert world.run(1.0) == 0 and world.rests and world.pilot.phase == "waiting"


def test_a_stop_lasts_long_enough_to_be_joined_and_keeps_the_limits() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.9):
        v = share * LIMITS.velocity * rng.uniform(-1, 1, 7)
        stop = to_rest(LIMITS, CoreSettings(brake_share=0.3), 5.0, TASK.arm.rest, v, np.zeros(7))
        peaks = stop.curve.peaks()
        assert stop.stamp == 5.0 and stop.end >= 5.35 and stop.curve.ends_at_rest()
        assert np.all(peaks.acceleration <= 0.45 * LIMITS.acceleration) and np.all(peaks.velocity <= LIMITS.velocity)


def test_goals_are_checked_in_sentences() -> None:
    assert np.array_equal(GOAL.place, PLACE) and np.allclose(TASK.chain.hand(GOAL.posture), PLACE, atol=1e-3)
    assert GOAL.as_planners_have_it(7) is GOAL.posture and GOAL.as_planners_have_it(3) is GOAL.place
    with pytest.raises(DFPlannerError, match="a goal of 4 numbers"):
        GOAL.as_planners_have_it(4)
    with pytest.raises(DFPlannerError, match="out of the arm's reach"):
        reachable(TASK, np.array([2.0, 0.0, 0.4]))
    with pytest.raises(DFPlannerError, match="'camera'; expected 'base'"):
        in_frame("camera", "base", (0, 0, 0))
    with pytest.raises(DFPlannerError, match="finite"):
        in_frame("base", "base", (0, np.inf, 0))
    names, rest = LIMITS.names, TASK.arm.rest
    assert np.allclose(hand_of(TASK, JointReading(names[::-1], 0.0, rest[::-1])), at_rest(TASK)[1].place)
    for wrong in (JointReading(names[1:], 0.0, rest[1:]), JointReading(names, 0.0, rest[1:])):
        with pytest.raises(DFPlannerError, match="expected one for each of joint1"):
            hand_of(TASK, wrong)
    for bad in (np.nan, 9.0):
        with pytest.raises(DFPlannerError, match="beyond the ends of joint1"):
            hand_of(TASK, JointReading(names, 0.0, np.array([bad, *rest[1:]])))
