"""The controller that never waits: what it executes, tick by tick, whenever plans arrive.

Plans here are made up: an action is (when its plan was asked for, how many ticks after that it is meant for), and a
plan begins with the actions it was told are under way. So every executed action says where it came from.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dfplanner.asynchronous import AsynchronousController, PlanRequest, SimulatedWorker, ThreadWorker, plans_of
from dfplanner.commitment import committed_actions
from dfplanner.guidance import ReachGoal
from dfplanner.planner import Planner
from dfplanner.settings import PlannerSettings
from dfplanner.testing import Circle
from dfplanner.types import DFPlannerError, Plan

OBS = np.zeros((1, 2))
CHUNK = 5


@dataclass
class Maker:
    """Makes plans up, and keeps what it was asked."""

    chunks: int = 4
    asked: list[PlanRequest] = field(default_factory=list)

    def __call__(self, r: PlanRequest) -> Plan:
        self.asked.append(r)
        n = self.chunks * CHUNK
        actions = np.stack([np.full(n, r.tick), np.arange(n)], 1).astype(np.float32)[None]
        if r.previous is not None and r.committed:
            actions[:, : r.committed] = committed_actions(r.previous, r.elapsed, r.committed)
        levels = np.zeros((1, self.chunks + 1, 2), np.int64)
        zeros = np.zeros((1, self.chunks + 1, 2), np.float32)
        return Plan(zeros, actions, levels, np.zeros(1, np.float32), CHUNK, 0.1, zeros)


def controller(delay, every: int = 5, chunks: int = 4, **more) -> tuple[AsynchronousController, Maker]:
    make = Maker(chunks)
    return AsynchronousController(SimulatedWorker(make, delay), every, 2, **more), make


def meant_for(action: NDArray) -> int:
    """The tick that an action was made for."""
    return int(action[0].sum())


@given(st.integers(0, 8), st.integers(1, 10), st.booleans())
@settings(max_examples=60, deadline=None)
def test_at_a_constant_delay_every_action_is_its_ticks_own(delay: int, every: int, commit: bool) -> None:
    """Plans long enough: after the first there is no stall, no plan is late, and none is asked for too early."""
    c, make = controller(delay, every, commit=commit)
    for tick in range(60):
        action = c.act(OBS)
        assert c.stalled == (tick < delay)
        if tick >= delay:  # the first plan's clock stood still until it was there
            assert meant_for(action) == (tick - delay if c.plans == 1 else tick)
    assert c.stalls == delay and c.late == 0 and c.expected_delay == delay
    gaps = np.diff([r.tick for r in make.asked])
    assert (gaps == max(every, delay)).all() and len(make.asked) >= (60 - delay) // max(every, delay)
    for r in make.asked[1:]:
        assert (r.previous is not None) == commit and r.committed == (delay if commit else 0)


@given(st.lists(st.integers(0, 12), min_size=30, max_size=30), st.integers(1, 8), st.integers(3, 8))
@settings(max_examples=80, deadline=None)
def test_whatever_the_delays_what_is_committed_is_done(delays: list[int], every: int, chunks: int) -> None:
    """What a request says will be executed until its plan comes is executed, whether that is early, late or in time; a
    plan is late only if it came after that; and what follows a switch continues the new plan at its right place."""
    c, make = controller(delays, every, chunks)
    done: list[tuple[NDArray, bool]] = []
    for _ in range(25):
        action = c.act(OBS)
        done.append((action, c.stalled))
        if c.switched and c.plan is not None:
            assert (action == c.plan.actions[:, c.place]).all()
    late = 0
    for r, delay in zip(make.asked, delays, strict=False):
        if r.previous is None:
            continue
        told = committed_actions(r.previous, r.elapsed, r.committed)
        for i in range(min(r.committed, delay, 25 - r.tick)):
            action, stalled = done[r.tick + i]
            assert not stalled and (action == told[:, i]).all()
        late += r.committed < delay < 25 - r.tick
    assert c.late == late
    assert c.stalls == sum(stalled for _, stalled in done)


def test_a_plan_that_comes_too_late_is_entered_where_the_old_one_ended() -> None:
    """The old plan ends before the new one is there: the loop stands still, and so does the new plan's clock."""
    c, make = controller([0, 9, 1], every=3, chunks=1, fallback="hold")
    seen = [c.act(OBS)[0].tolist() for _ in range(14)]
    assert seen[:5] == [[0, i] for i in range(5)]
    assert seen[5:12] == [[0, 4]] * 7 and c.stalls == 7, "from 5 to 11 there is none"
    assert make.asked[1].tick == 3 and seen[12] == [3, 2], "two of its steps had passed before the loop stood still"
    assert c.late == 1


def test_what_is_done_without_a_plan_is_what_was_declared() -> None:
    seen: list[NDArray] = []

    def mine(observation: NDArray, last: NDArray) -> NDArray:
        seen.append(last.copy())
        return observation + 7

    for fallback, want in (("zero", [0, 0]), ("hold", [0, 0]), (mine, [8, 9])):
        c, _ = controller(2, fallback=fallback)
        assert c.act(np.array([[1.0, 2.0]]))[0].tolist() == want and c.stalled
    assert seen[0].tolist() == [[0, 0]]


def test_a_new_episode_knows_nothing_of_the_last_one() -> None:
    c, make = controller(3)
    for _ in range(5):
        c.act(OBS)
    c.act(OBS)  # a second plan is under way
    assert len(make.asked) == 1 and c.plans == 1
    c.reset()
    assert c.plan is None and (c.plans, c.stalls, c.late) == (0, 0, 0) and c.expected_delay == 3
    assert [meant_for(c.act(OBS)) for _ in range(6)] == [0, 0, 0, 0, 1, 2] and c.stalls == 3
    assert [r.previous for r in make.asked[:2]] == [None, None]


def test_observations_are_the_requests_own() -> None:
    """The caller may reuse its array."""
    c, make = controller(2)
    o = np.zeros((1, 2))
    for i in range(4):
        o[:] = i
        c.act(o)
    assert (make.asked[0].observation == 0).all()


@pytest.mark.parametrize("delay", [0, 1, 2, 3, 5])
def test_round_the_circle_no_delay_shows(delay: int) -> None:
    """The ideal planner, its world, and dynamics that are known: after the first plan the loop goes round without a
    stall, every action the world's own, though each plan is made of what was seen ``delay`` ticks before."""
    world = Circle()
    s = PlannerSettings(steps=25, action_steps=4, action_chunks=5, warm_level=60)

    class Known:
        def predict(self, observation: NDArray, actions: NDArray, recent: object = ()) -> NDArray[np.float64]:
            angle = np.arctan2(observation[:, 1], observation[:, 0]) * world.places / (2 * np.pi)
            return world.position(np.round(angle + actions[..., 1].sum(1))).astype(np.float64)

    p = Planner(world.checkpoint(), s)
    worker = SimulatedWorker(plans_of(p, torch.Generator().manual_seed(0)), delay)
    c = AsynchronousController(worker, 2, 2, dynamics=Known())
    at, way = np.array([3, 11]), np.array([1, -1])
    goal = ReachGoal([world.goal(a, w) for a, w in zip(at, way, strict=True)])
    for tick in range(24):
        action = c.act(world.position(at).astype(np.float64), None if tick else goal)
        assert c.stalled == (tick < delay)
        if not c.stalled:
            np.testing.assert_allclose(action, world.action(at, way), atol=0.02)
            at = at + way
    assert c.plans > 3 and c.late == 0


# a thread


def ticks(c: AsynchronousController, until, limit_s: float = 20.0) -> None:
    """Acts until something is so."""
    end = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < end, "nothing came of it"
        c.act(OBS)
        time.sleep(0.001)


def test_a_thread_plans_while_the_old_plan_is_executed() -> None:
    made, go = Maker(), threading.Event()

    def slow(r: PlanRequest) -> Plan:
        assert go.wait(20)
        return made(replace(r, previous=None))

    with AsynchronousController(ThreadWorker(slow), 5, 2) as c:
        for _ in range(3):
            assert (c.act(OBS) == 0).all() and c.stalled, "acting never waits"
        go.set()
        ticks(c, lambda: c.plans > 0)
        assert not c.stalled and c.expected_delay >= 3
    assert not any(t.name == "dfplanner-plans" and t.is_alive() for t in threading.enumerate())


def test_a_failure_in_the_thread_reaches_the_loop_once_and_the_loop_goes_on() -> None:
    made, fail = Maker(), [True]

    def sometimes(r: PlanRequest) -> Plan:
        if fail.pop() if fail else False:
            raise ZeroDivisionError("no plan today")
        return made(r)

    with AsynchronousController(ThreadWorker(sometimes), 1, 2) as c:
        with pytest.raises(DFPlannerError, match="tick 0 could not be made: no plan today") as raised:
            ticks(c, lambda: False)
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
        ticks(c, lambda: c.plans > 0)


def test_of_several_requests_that_wait_the_last_one_is_answered_and_closing_ends_the_thread() -> None:
    made, go, begun = Maker(), threading.Event(), threading.Event()

    def slow(r: PlanRequest) -> Plan:
        begun.set()
        assert go.wait(20)
        return made(r)

    worker = ThreadWorker(slow)
    requests = [PlanRequest(t, OBS, None, None, 0, 0) for t in range(4)]
    worker.submit(requests[0])
    assert begun.wait(20)
    for r in requests[1:]:
        worker.submit(r)
    go.set()
    answers: list[PlanRequest] = []
    end = time.monotonic() + 20
    while len(answers) < 2:
        assert time.monotonic() < end
        if (answer := worker.poll(0)) is not None:
            answers.append(answer[0])
    assert [r.tick for r in answers] == [0, 3]
    worker.close()
    worker.close()
    with pytest.raises(DFPlannerError, match="closed"):
        worker.submit(requests[0])


def test_an_episode_may_be_ended_from_another_thread() -> None:
    errors: list[Exception] = []
    with AsynchronousController(ThreadWorker(Maker()), 2, 2) as c:
        stop = threading.Event()

        def resets() -> None:
            try:
                while not stop.is_set():
                    c.reset()
                    time.sleep(0.0005)
            except Exception as e:
                errors.append(e)

        other = threading.Thread(target=resets)
        other.start()
        for _ in range(300):
            assert c.act(OBS).shape == (1, 2)
        stop.set()
        other.join()
    assert not errors


@pytest.mark.parametrize(
    "more, says",
    [
        ({"every": 0}, "expected at least 1, 1 and 0"),
        ({"expected_delay": -1}, "expected at least 1, 1 and 0"),
        ({"fallback": "panic"}, "the fallback is 'panic'"),
    ],
)
def test_a_controller_that_cannot_work_is_a_sentence(more: dict, says: str) -> None:
    with pytest.raises(DFPlannerError, match=says):
        controller(0, **more)


def test_the_pages_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "real-time.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "real-time.md", "exec"), {})
    assert re.fullmatch(r"[1-9]\d* plans, \d+ of them late; \d+ steps without a plan\n", capsys.readouterr().out)
