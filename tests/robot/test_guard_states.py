"""The guard's modes: silence, stops and faults, and a state machine that is its table."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dfplanner.types import DFPlannerError
from dfplanner_robot.fakes import KINDS, FakeArm, FaultInjector
from dfplanner_robot.rig import HOME, TICK_S, make_rig, three_joints
from dfplanner_robot.safety import Guard, JointReading, Mode, Outcome, Reason, SafetySettings
from dfplanner_robot.states import EXPLAINED, TABLE, Event
from dfplanner_robot.trajectory import JointTrajectory

LIMITS = three_joints()
NAMES, J, DT = LIMITS.names, len(LIMITS), TICK_S


# Silence


def test_without_new_plans_it_brakes_in_time_and_goes_on_with_the_next():
    rig = make_rig(plan_timeout_s=0.3)
    rig.move()
    assert rig.tick(1) is Mode.BRAKING and rig.guard.reason is Reason.STALE
    assert rig.rested() is Mode.READY
    assert rig.propose().outcome is Outcome.PASS


def test_a_missing_heartbeat_brakes():
    rig = make_rig(heartbeat_timeout_s=0.08)
    rig.propose()
    for _ in range(10):
        rig.guard.heartbeat(rig.clock())
        rig.tick()
    assert rig.guard.mode is Mode.ACTIVE
    rig.tick(5)
    assert rig.guard.reason is Reason.SILENT and rig.rested() is Mode.READY


def test_a_plan_that_ends_in_motion_is_braked_from_there_and_one_at_rest_arrives():
    rig = make_rig(plan_timeout_s=None)
    rig.propose()
    while rig.tick() is Mode.ACTIVE:
        pass
    assert rig.guard.reason is Reason.ENDED and rig.rested() is Mode.READY
    state = rig.state()
    rig.propose(JointTrajectory(NAMES, rig.clock(), np.array([0.0, 1.0]), np.array([state.q, HOME]), np.zeros((2, J))))
    rig.tick(60)
    assert rig.guard.mode is Mode.READY and rig.guard.reason is None
    assert_allclose(rig.position, HOME, atol=1e-9)


def test_what_lies_ahead_ends_at_rest_and_is_what_is_commanded():
    rig = make_rig()
    with pytest.raises(DFPlannerError, match="idle"):
        Guard(LIMITS).ahead(0.1)
    rig.move()
    ahead = rig.guard.ahead(0.1)
    assert ahead.stamp == rig.clock() and ahead.curve.ends_at_rest()
    for _ in range(5):
        rig.tick()
        assert_allclose(ahead.curve.at(rig.clock()).q, rig.position, atol=1e-9)
    dense = ahead.curve.at(np.arange(0, 60) * DT + ahead.stamp)
    assert not LIMITS.exceeded(dense.q, dense.v, dense.a).any()


# The state machine


def test_the_table_is_what_happens():
    """Random operators and planners never cause a change that is not in the table, and every change was seen."""
    seen: set[tuple[Mode, Event]] = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rig = make_rig(plan_timeout_s=0.2)
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
                    here = rig.state().q
                    rig.propose(
                        JointTrajectory(NAMES, rig.clock(), np.array([0, 0.1]), np.array([here] * 2), np.zeros((2, J)))
                    )
                elif act and act != "sense":
                    getattr(guard, act)(rig.clock())
            except DFPlannerError:
                assert guard.mode is before
            spoil = {"positions": HOME * np.nan} if act == "sense" and rng.random() < 0.3 else {}
            rig.tick(int(rng.integers(1, 8)) if not spoil else 1, spoil=spoil)
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
    rig = make_rig(resume_after_s=0.1)
    rig.move()
    rig.guard.stop(rig.clock())
    assert rig.rested() is Mode.STOPPED
    rig.tick(20)
    assert rig.guard.mode is Mode.STOPPED  # an operator's stop is not resumed by itself
    assert rig.propose().reason is Reason.NOT_READY
    rig.guard.resume(rig.clock())
    rig.move()
    rig.propose(rig.plan(np.nan))
    assert rig.rested() is Mode.STOPPED
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
    assert guard.propose(0.03, make_rig().plan()).reason is Reason.NOT_READY


def test_released_it_commands_nothing_and_may_start_elsewhere():
    rig = make_rig()
    rig.move()
    with pytest.raises(DFPlannerError, match="cannot release while active"):
        rig.guard.release(rig.clock())
    rig.guard.stop(rig.clock())
    rig.rested()
    rig.guard.release(rig.clock())
    rig.tick(4)
    assert rig.command.position is None
    rig.arm.q = np.array([1.0, 0.5, -2.0])
    rig.tick(6)
    rig.guard.start(rig.clock())
    rig.tick()
    assert_allclose(rig.position, [1.0, 0.5, -2.0])


def test_an_arm_moved_by_hand_is_not_resumed():
    rig = make_rig(tracking_rad=1.0, sensor_jump_rad=1.0)
    rig.guard.stop(rig.clock())
    rig.tick(2)
    rig.arm.q = rig.arm.q + 0.5
    for _ in range(5):
        now = rig.clock.advance(DT)
        rig.guard.tick(now, JointReading(NAMES, now, HOME + 0.5, np.zeros(J)))
    with pytest.raises(DFPlannerError):
        rig.guard.resume(rig.clock())


def test_an_arm_beyond_the_inset_may_come_back():
    rig = make_rig(home=np.array([1.995, 0, 0]))
    assert rig.guard.allowed.upper[0] == pytest.approx(1.995)
    end = np.array([1.5, 0, 0])
    plan = JointTrajectory(NAMES, rig.clock(), np.array([0.0, 1.5]), np.array([[1.995, 0, 0], end]), np.zeros((2, J)))
    assert rig.propose(plan).outcome is Outcome.PASS


def test_settings_are_checked():
    many: list[dict[str, Any]] = [
        {"gap_s": -1.0},
        {"dt_s": 0.0},
        {"max_slowdown": 0.5},
        {"blends_s": ()},
        {"jump_rad": np.nan},
    ]
    for bad in many:
        with pytest.raises(DFPlannerError):
            SafetySettings(**bad)
    with pytest.raises(DFPlannerError, match="not known"):
        FaultInjector(LIMITS, np.random.default_rng(0), ["earthquake"])
