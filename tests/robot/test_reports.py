"""What the planner node says of itself: who is silent, what failed, what blocks the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

pytest.importorskip("websockets", reason="the worker is asked through websockets")

from dfplanner_envs.arm.task import reach_task
from dfplanner_envs.mazes import MAZES
from dfplanner_robot.core import ArmCore
from dfplanner_robot.fakes import FakeClock
from dfplanner_robot.nodes.bodies import body_of
from dfplanner_robot.nodes.ears import Ears
from dfplanner_robot.nodes.goals import at_rest
from dfplanner_robot.nodes.patience import CUTS
from dfplanner_robot.nodes.pilot import Pilot


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ears(log: list[str], clock: FakeClock) -> Ears:
    made = Ears("/joint_states", lambda line: log.append(f"! {line}"), log.append, clock)
    assert made.missed() == ""
    made.listen()
    return made


def test_an_arm_that_is_not_heard_is_told_of_and_logged_once(ears: Ears, clock: FakeClock, log: list[str]) -> None:
    assert ears.missed() == "", "it has just begun to listen"
    for _ in range(3):
        clock.advance(3.1)
        assert ears.missed() == "waits for joint states on /joint_states: none came"
    ears.reading(useful=False)
    assert "of other joints" in ears.missed()
    ears.reading(useful=True)
    assert ears.missed() == ""
    clock.advance(3.2)
    assert ears.missed() == "the last joint state is 3.2 s old"
    ears.reading(useful=True)
    assert ears.missed() == ""
    assert log == [
        "! waits for joint states on /joint_states: none came",
        "the arm is heard again",
        "! the last joint state is 3.2 s old",
        "the arm is heard again",
    ]
    clock.advance(9.0)
    ears.close()
    assert ears.missed() == ""


def test_a_guard_is_missed_only_where_there_was_one(ears: Ears, clock: FakeClock) -> None:
    ears.reading(useful=True)
    assert ears.missed() == ""
    ears.guard()
    for seconds, words in ((2.9, ""), (1.1, "the guard was last heard 4 s ago")):
        clock.advance(seconds)
        ears.reading(useful=True)
        assert ears.missed() == words
    ears.guard()
    assert ears.missed() == ""


class Quiet:
    """A worker that is ready, and has nothing to do."""

    state, reason, restarts, pid, goal_size = "ready", "", 0, None, 3
    metadata: dict[str, Any] = {}
    outcomes: tuple[()] = ()

    class launch:
        source = "here"


@pytest.fixture
def say() -> Callable[..., tuple[bytes, str]]:
    pytest.importorskip("diagnostic_msgs", reason="needs ROS 2: diagnostic_msgs is not installed")
    from dfplanner_robot.nodes.reports import Troubles, planner_status

    def told(life: str, pilot: Pilot | None, now: float = 1.0, **troubles: str) -> tuple[bytes, str]:
        status = planner_status(life, pilot, now, Troubles(**troubles), cast(Any, ()))
        return cast(bytes, status.level), status.message

    return told


OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"


def test_a_failed_configure_is_an_error_and_not_yet_configured_is_none(say: Callable[..., Any]) -> None:
    assert say("unconfigured", None) == (OK, "unconfigured")
    assert say("unconfigured", None, failed="unknown checkpoint") == (ERROR, "configuring failed: unknown checkpoint")


def test_it_is_not_well_while_nothing_can_work(say: Callable[..., Any]) -> None:
    task = reach_task()
    pilot = Pilot(ArmCore(task.arm.limits, task.chain.hand), cast(Any, Quiet()), 0.02)
    assert say("active", pilot) == (OK, "waiting")
    assert say("active", pilot, missed="the last joint state is 3.2 s old")[0] == WARN
    assert say("active", pilot, now=0.0) == (WARN, "waits for simulated time on /clock: none came")
    pilot.set_goal(at_rest(task)[1])
    for _ in range(CUTS + 1):
        for mode in ("ready", "braking"):
            pilot.guard_says(mode, 1.0)
    level, words = say("active", pilot)
    assert level == WARN and words.startswith("blocked: the guard refuses this way;")
    pilot.why = "the hand would touch the post"
    assert "this way (the hand would touch the post);" in say("active", pilot)[1]


@pytest.mark.parametrize("model", ["", *(f"maze2d-{name}" for name in MAZES)])
def test_what_a_body_wants_its_node_takes(model: str) -> None:
    pytest.importorskip("rcl_interfaces", reason="needs ROS 2: rcl_interfaces is not installed")
    from dfplanner_robot.nodes.planner_params import parameters

    for param in parameters(body_of(model).defaults):
        assert param.checked(param.default) == param.default
