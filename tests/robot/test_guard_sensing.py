"""The guard's checks of the measured joints and of the clock."""

from __future__ import annotations

import numpy as np
import pytest

from dfplanner.types import DFPlannerError
from dfplanner_robot.rig import HOME, TICK_S, make_rig, three_joints
from dfplanner_robot.safety import JointReading, Mode, Outcome, Reason

LIMITS = three_joints()
NAMES, J, DT = LIMITS.names, len(LIMITS), TICK_S


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
    rig = make_rig()
    if moving:
        rig.move()
    rig.tick(1, spoil=spoil)
    assert rig.guard.reason is reason and rig.command.outcome is Outcome.BRAKE and rig.guard.detail
    assert rig.rested() is Mode.FAULT
    with pytest.raises(DFPlannerError, match="cannot resume"):
        rig.guard.resume(rig.clock())
    rig.tick(5)
    rig.guard.reset(rig.clock())
    rig.guard.resume(rig.clock())
    assert rig.propose().outcome is Outcome.PASS


def test_readings_that_stop_brake_and_late_ones_are_left_out():
    rig = make_rig()
    rig.move()
    rig.tick(3, read=False)
    assert rig.guard.mode is Mode.ACTIVE
    rig.tick(1, spoil={"stamp": rig.clock() - 1.0})
    assert rig.guard.senses.old == 1 and rig.guard.mode is Mode.ACTIVE
    rig.tick(1, read=False)
    assert rig.guard.reason is Reason.SENSOR_AGE
    assert rig.rested() is Mode.FAULT
    rig.tick(10, read=False)
    with pytest.raises(DFPlannerError, match="sound readings"):
        rig.guard.reset(rig.clock())


def test_readings_of_other_joints_are_somebody_elses():
    rig = make_rig()
    rig.move()
    other = {"names": ("finger",), "positions": np.array([0.04]), "velocities": None}
    rig.tick(3, spoil=other)
    assert rig.guard.mode is Mode.ACTIVE
    rig.tick(2, spoil=other)  # they are no sign of our arm
    assert rig.guard.reason is Reason.SENSOR_AGE
    assert rig.rested() is Mode.FAULT


def test_velocities_that_do_not_add_up_brake():
    rig = make_rig()
    rig.propose()
    for _ in range(30):
        if rig.tick(1, spoil={"velocities": -rig.arm.v}) is not Mode.ACTIVE:
            break
    assert rig.guard.reason is Reason.SENSOR_VELOCITY


def test_an_arm_that_does_not_follow_brakes():
    rig = make_rig(frozen_s=10.0, tracking_rad=0.05)
    rig.propose()
    for _ in range(40):
        now = rig.clock.advance(DT)
        if rig.guard.tick(now, JointReading(NAMES, now, HOME, np.zeros(J))).mode is not Mode.ACTIVE:
            break
    assert rig.guard.reason is Reason.TRACKING


def test_sensors_that_repeat_are_fine_at_rest_and_not_in_motion():
    rig = make_rig()
    for _ in range(50):
        now = rig.clock.advance(DT)
        rig.guard.tick(now, JointReading(NAMES, now, HOME, np.zeros(J)))
    assert rig.guard.mode is Mode.READY
    rig.move()
    q, v, n = rig.arm.q, rig.arm.v, 0
    while rig.guard.mode is Mode.ACTIVE:
        n += 1
        rig.tick(1, spoil={"positions": q, "velocities": v})
    assert rig.guard.reason is Reason.SENSOR_FROZEN and n * DT <= 0.1


# The clock


def test_clock_jumps_brake():
    for by, reason, mode in ((-1.0, Reason.CLOCK_BACK, Mode.FAULT), (1.0, Reason.TICK_GAP, Mode.READY)):
        rig = make_rig(plan_timeout_s=5.0)
        rig.move()
        rig.clock.advance(by)
        rig.tick()
        assert rig.guard.reason is reason and rig.rested() is mode
        if mode is Mode.FAULT:
            rig.guard.reset(rig.clock())
            rig.guard.resume(rig.clock())
        assert rig.propose().outcome is Outcome.PASS


def test_ticks_that_are_too_slow_for_the_clock_brake():
    rig = make_rig(plan_timeout_s=None)
    rig.move()
    for _ in range(20):
        rig.clock.advance(0.02)
        if rig.tick() is not Mode.ACTIVE:
            break
    assert rig.guard.reason is Reason.TICK_GAP


@pytest.mark.parametrize("comes", [True, False])
def test_what_the_arm_said_while_the_guard_was_frozen_may_come_a_little_later(comes: bool) -> None:
    rig = make_rig(plan_timeout_s=None)
    rig.move()
    timeout = rig.guard.settings.sensor_timeout_s
    rig.clock.advance(10 * timeout)
    rig.tick(2, read=False)
    assert rig.guard.reason is Reason.TICK_GAP and rig.guard.mode is Mode.BRAKING
    rig.tick(round(2 * timeout / rig.dt_s), read=comes)
    rig.rest()
    assert rig.guard.mode is (Mode.READY if comes else Mode.FAULT)
    assert comes or rig.guard.reason is Reason.SENSOR_AGE


def test_ticks_that_are_slow_for_long_do_not_excuse_an_arm_that_says_nothing() -> None:
    rig = make_rig(plan_timeout_s=None)
    rig.move()
    for _ in range(10):
        rig.clock.advance(2 * rig.guard.settings.gap_s)
        rig.tick(1, read=False)
    assert rig.guard.mode is Mode.FAULT and rig.guard.counts["sensor_age"]
