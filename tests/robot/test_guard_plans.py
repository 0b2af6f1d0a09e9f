"""The guard's checks of a plan, one by one, and what it changes on one that passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dfplanner.types import DFPlannerError
from dfplanner_robot.rig import HOME, TICK_S, Rig, make_rig, three_joints
from dfplanner_robot.safety import Mode, Outcome, Reason, Surroundings
from dfplanner_robot.states import EXPLAINED, Clamp
from dfplanner_robot.trajectory import JointTrajectory, from_actions, slowed

LIMITS = three_joints()
NAMES, J, DT = LIMITS.names, len(LIMITS), TICK_S


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
    rig = make_rig()
    rig.move()
    plan = spoilt(rig, what)
    if reason is Reason.LATE:
        rig.guard._last_stamp = None  # else the order is wrong already
    verdict = rig.propose(plan)
    assert (verdict.outcome, verdict.reason) == (Outcome.BRAKE, reason) and verdict.detail
    speed = np.abs(rig.velocity).max()
    rig.tick()
    assert rig.command.outcome is Outcome.BRAKE and rig.command.reason is reason
    assert rig.guard.counts[reason.value] == 1
    rig.tick(2)
    assert np.abs(rig.velocity).max() < speed
    assert rig.rested() is EXPLAINED[reason][1]


def test_joints_in_another_order_pass():
    rig, other = make_rig(), make_rig()
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
    rig = make_rig()
    plan = rig.plan()
    assert rig.propose(plan).outcome is Outcome.PASS
    for _ in range(20):
        rig.tick()
        assert_allclose(rig.position, plan.curve.at(rig.clock()).q, atol=1e-9)
        assert_allclose(rig.velocity, plan.curve.at(rig.clock()).v, atol=1e-9)


def test_a_plan_that_is_too_fast_is_slowed_and_keeps_its_path():
    rig = make_rig()
    plan = slowed(rig.plan(1.0), 0.6)
    verdict = rig.propose(plan)
    assert verdict.outcome is Outcome.CLAMP and Clamp.SLOWED in verdict.clamps
    line = plan.positions[-1] - plan.positions[0]
    while rig.tick() is Mode.ACTIVE:
        assert rig.command.outcome is Outcome.CLAMP and rig.command.position is not None
        off = np.cross(rig.position - plan.positions[0], line / np.linalg.norm(line))
        assert np.linalg.norm(off) < 5e-3
    assert rig.guard.counts["slowed"] == rig.guard.counts["clamp"] == 1
    assert rig.rested() is Mode.READY


def test_points_a_little_beyond_an_end_are_clipped():
    rig = make_rig(home=np.array([1.9, 0, 0]), plan_timeout_s=None)
    q = np.array([1.9, 0, 0]) + np.linspace(0, 1, 11)[:, None] * np.array([0.09, 0, 0])
    v = np.gradient(q, 0.1, axis=0)
    v[0] = v[-1] = 0
    verdict = rig.propose(JointTrajectory(NAMES, rig.clock(), 0.1 * np.arange(11, dtype=np.float64), q, v))
    assert verdict.outcome is Outcome.CLAMP and Clamp.POSITION in verdict.clamps
    rig.tick(80)
    assert rig.guard.mode is Mode.READY
    assert_allclose(rig.arm.q[0], 1.98, atol=1e-4)


def test_a_plan_that_begins_a_little_off_is_blended():
    rig = make_rig()
    rig.move()
    plan = rig.plan()
    verdict = rig.propose(replace(plan, positions=plan.positions + 0.02))
    assert verdict.outcome is Outcome.CLAMP and Clamp.BLENDED in verdict.clamps
    rig.tick(20)
    assert_allclose(rig.position, plan.curve.at(rig.clock()).q + 0.02, atol=1e-6)
    assert rig.arm.violations(DT) == []


def test_a_plan_that_begins_later_waits_for_its_time():
    rig = make_rig()
    rig.propose(rig.plan(stamp=rig.clock() + 0.2))
    rig.tick(9)
    assert_allclose(rig.position, HOME, atol=1e-9)
    rig.tick(20)
    assert np.abs(rig.position - HOME).max() > 0.05


# Surroundings


class Wall:
    """Free where the first joint is below 0.5."""

    def free(self, q: np.ndarray) -> np.ndarray:
        return q[:, 0] < 0.5


def test_a_plan_into_a_wall_is_refused_and_one_that_cannot_stop_before_it_is_braked():
    rig = make_rig(where=Surroundings(Wall()), plan_timeout_s=None)
    far = JointTrajectory(
        NAMES, rig.clock(), np.array([0.0, 2.0]), np.array([HOME, [0.6, -0.2, -0.5]]), np.zeros((2, J))
    )
    assert rig.propose(far).reason is Reason.COLLISION
    assert rig.rested() is Mode.READY
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
    assert rig.guard.reason is Reason.BLOCKED and rig.rested() is Mode.READY
    assert np.array(rig.arm.commands)[:, 0].max() < 0.5


def test_the_hand_keeps_to_its_box():
    box = np.array([[-1.0, -1.0, -1.0], [0.3, 1.0, 1.0]])
    rig = make_rig(where=Surroundings(None, lambda q: q, box))
    verdict = rig.propose(rig.plan(0.8))
    assert verdict.reason is Reason.WORKSPACE and "outside its box" in verdict.detail
    with pytest.raises(DFPlannerError, match="two corners"):
        Surroundings(None, lambda q: q, box[::-1])
    with pytest.raises(DFPlannerError, match="a hand"):
        Surroundings(None, None, box)


def test_a_plan_from_the_motion_before_a_brake_is_not_taken_at_rest():
    rig = make_rig()
    rig.move()
    late = rig.plan()
    rig.guard.stop(rig.clock())
    assert rig.rested() is Mode.STOPPED
    rig.guard.resume(rig.clock())
    verdict = rig.propose(replace(late, stamp=rig.clock()))
    assert verdict.reason is Reason.JUMP and "at rest" in verdict.detail
    assert rig.rested() is Mode.READY and rig.propose().outcome is Outcome.PASS


def test_a_plan_stamped_before_the_last_brake_was_over_is_not_taken():
    rig = make_rig()
    rig.move()
    begins = rig.clock()
    rig.guard.stop(rig.clock())
    assert rig.rested() is Mode.STOPPED
    rig.guard.resume(rig.clock())
    late = replace(rig.plan(), stamp=begins)
    assert rig.propose(late).reason is Reason.ORDER and rig.rested() is Mode.READY
    assert rig.propose().outcome is Outcome.PASS
