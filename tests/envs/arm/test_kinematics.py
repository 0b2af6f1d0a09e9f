"""The arm's own kinematics against MuJoCo and finite differences; inverse kinematics against both."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm import JointLimits, arm_of, reach_arm
from dfplanner_envs.arm.ik import Chain, solve
from dfplanner_envs.arm.model import ARM_XML, REACH_XML

MjSpec: Any = mujoco.MjSpec  # pyright: ignore
ARM = reach_arm()
CHAIN = Chain.of(ARM)
POSTURE = st.lists(st.floats(0, 1), min_size=7, max_size=7).map(
    lambda u: ARM.limits.lower + np.array(u) * (ARM.limits.upper - ARM.limits.lower)
)


@given(POSTURE)
@settings(max_examples=50)
def test_hand_and_jacobian_are_those_of_mujoco(q):
    data = mujoco.MjData(ARM.model)  # pyright: ignore
    data.qpos[ARM.qpos] = q
    mujoco.mj_kinematics(ARM.model, data)  # pyright: ignore
    mujoco.mj_comPos(ARM.model, data)  # pyright: ignore
    jac = np.zeros((3, ARM.model.nv))
    mujoco.mj_jacSite(ARM.model, data, jac, None, ARM.hand)  # pyright: ignore
    hand, ours = CHAIN.jacobian(q[None])
    np.testing.assert_allclose(hand[0], data.site_xpos[ARM.hand], atol=1e-9)
    np.testing.assert_allclose(ours[0], jac[:, ARM.dof], atol=1e-9)


@given(POSTURE)
@settings(max_examples=50)
def test_jacobian_is_the_finite_difference_of_the_hand(q):
    h = 1e-6 * np.eye(7)
    slope = (CHAIN.hand(q + h) - CHAIN.hand(q - h)).T / 2e-6
    np.testing.assert_allclose(CHAIN.jacobian(q[None])[1][0], slope, atol=1e-7)


def test_chain_of_a_model_with_turned_frames():
    """Offsets, turned bodies, anchors beside their frame and a hand in a body without a joint, all at once."""
    spec = MjSpec.from_string("""
    <mujoco><compiler angle="radian" autolimits="true"/><worldbody><body pos="1 2 3" quat="0.8 0.6 0 0">
      <body pos="0.1 0 0.2" quat="0.6 0 0.8 0"><joint name="a" axis="0.6 0 0.8" pos="0.1 0.2 0" range="-1 1"
      actuatorfrcrange="-1 1"/><geom size="0.1"/>
      <body pos="0 0.3 0" quat="0.5 0.5 0.5 0.5"><joint name="b" axis="0 1 0" range="-1 1" actuatorfrcrange="-1 1"/>
      <geom size="0.1"/><body pos="0 0 0.4" quat="0 1 0 0"><site name="hand" pos="0.1 0.2 0.3"/></body></body></body>
    </body></worldbody><actuator><position joint="a" kp="1"/><velocity joint="a" kv="1"/><position joint="b" kp="1"/>
      <velocity joint="b" kv="1"/></actuator>
    <custom><numeric name="velocity_limit" data="1 1"/><numeric name="acceleration_limit" data="1 1"/>
      <numeric name="jerk_limit" data="1 1"/></custom>
    <keyframe><key name="rest" qpos="0 0"/></keyframe></mujoco>""")
    arm = arm_of(spec)
    data = mujoco.MjData(arm.model)  # pyright: ignore
    for q in np.random.default_rng(0).uniform(-1, 1, (10, 2)):
        data.qpos[:] = q
        mujoco.mj_kinematics(arm.model, data)  # pyright: ignore
        np.testing.assert_allclose(Chain.of(arm).hand(q), data.site_xpos[arm.hand], atol=1e-12)


def test_inverse_kinematics_reaches_stays_inside_and_repeats():
    rng = np.random.default_rng(1)
    low, high = ARM.limits.lower + 0.1, ARM.limits.upper - 0.1
    targets = CHAIN.hand(ARM.rest + rng.normal(0, 0.3, (40, 7)))
    rest = np.tile(ARM.rest, (40, 1))
    q, reached = solve(CHAIN, targets, rest, rest, low, high)
    assert reached.all()
    data = mujoco.MjData(ARM.model)  # pyright: ignore
    for row, target in zip(q, targets, strict=True):
        data.qpos[ARM.qpos] = row
        mujoco.mj_kinematics(ARM.model, data)  # pyright: ignore
        assert np.linalg.norm(data.site_xpos[ARM.hand] - target) < 2e-4
    assert (q >= low).all() and (q <= high).all()
    assert np.array_equal(solve(CHAIN, targets[7:9], rest[:2], rest[:2], low, high)[0], q[7:9])


def test_inverse_kinematics_stays_as_near_to_rest_as_the_target_allows():
    """At the answer, the way to rest has no part that would leave the hand where it is: the constrained minimum."""
    target = CHAIN.hand(ARM.rest)[None] + 0.1 * np.array([0.5, 1, -1])
    rest = ARM.rest[None]
    q, _ = solve(CHAIN, target, rest, rest, ARM.limits.lower, ARM.limits.upper)
    jac = CHAIN.jacobian(q)[1][0]
    along = (np.eye(7) - np.linalg.pinv(jac) @ jac) @ (ARM.rest - q[0])
    assert np.linalg.norm(along) < 0.02 * np.linalg.norm(ARM.rest - q[0])


def test_out_of_reach_is_told():
    rest = ARM.rest[None]
    assert not solve(CHAIN, [[2.0, 0, 0]], rest, rest, ARM.limits.lower, ARM.limits.upper)[1].any()


@pytest.mark.parametrize("path", [ARM_XML, REACH_XML])
def test_assets_load_alone_and_hold_themselves_up(path):
    model = mujoco.MjModel.from_xml_path(str(path))  # pyright: ignore
    data = mujoco.MjData(model)  # pyright: ignore
    data.qpos[:] = data.ctrl[:7] = ARM.rest
    mujoco.mj_step(model, data, 200)  # pyright: ignore
    np.testing.assert_allclose(data.qpos, ARM.rest, atol=1e-6)


def test_limits_are_the_models():
    limits, joint = ARM.limits, ARM.model.joint
    assert len(limits) == 7 and limits.names == tuple(f"joint{i}" for i in range(1, 8))
    for i, name in enumerate(limits.names):
        assert tuple(joint(name).range) == (limits.lower[i], limits.upper[i])
        assert ARM.model.actuator(int(ARM.position[i])).trnid[0] == joint(name).id
        assert ARM.model.actuator(int(ARM.velocity[i])).trnid[0] == joint(name).id


def test_limits_tell_what_exceeds_them():
    one = np.ones(2)
    limits = JointLimits(("a", "b"), -one, one, 2 * one, 3 * one, 4 * one, one)
    assert limits.exceeded([0, 1.1]).tolist() == [False, True]
    assert limits.exceeded([[0, -1.1], [0, 0]], velocity=[[-2.1, 0], [0, 0]]).tolist() == [[True, True], [False, False]]
    assert limits.exceeded(acceleration=[3, -3.1], jerk=[np.nan, 0]).tolist() == [True, True]
    with pytest.raises(DFPlannerError, match="below upper"):
        JointLimits(("a",), [1.0], [0.0], [1.0], [1.0], [1.0], [1.0])  # pyright: ignore
    with pytest.raises(DFPlannerError, match="expected 1 numbers"):
        JointLimits(("a",), [0.0, 0.0], [1.0], [1.0], [1.0], [1.0], [1.0])  # pyright: ignore
    with pytest.raises(DFPlannerError, match="above 0"):
        JointLimits(("a",), [0.0], [1.0], [0.0], [1.0], [1.0], [1.0])  # pyright: ignore
    with pytest.raises(ValueError, match="read-only"):
        limits.velocity[0] = 9


def test_a_model_without_what_an_arm_needs_is_refused():
    spec = MjSpec.from_file(str(REACH_XML))
    with pytest.raises(DFPlannerError, match="site 'gripper'"):
        arm_of(spec, hand="gripper")
    spec = MjSpec.from_file(str(REACH_XML))
    spec.delete(spec.actuator("velocity3"))
    spec.delete(spec.key("rest"))
    spec.add_key(name="rest")
    with pytest.raises(DFPlannerError, match="'joint3' has 0 velocity servos"):
        arm_of(spec)
