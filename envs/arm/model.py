"""The seven-joint arm and its scene in MuJoCo, and which joints, servos and hand a model has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.limits import Floats, JointLimits

HERE = Path(__file__).parent
ARM_XML, REACH_XML = HERE / "arm.xml", HERE / "reach.xml"
MEASURES = ("velocity_limit", "acceleration_limit", "jerk_limit")
"""Names of the model's numerics for limits that MJCF has no word for."""


@dataclass(frozen=True, eq=False)
class Arm:
    """A model, and where in it the arm's J joints, their servos and its hand are."""

    spec: Any
    """The ``mujoco.MjSpec`` it is compiled from, every geom named; copy it before a change."""
    model: Any
    """The compiled ``mujoco.MjModel``."""
    limits: JointLimits
    qpos: NDArray[np.int64]
    """(J,) addresses of the joints' positions."""
    dof: NDArray[np.int64]
    """(J,) addresses of their velocities."""
    position: NDArray[np.int64]
    """(J,) actuators that follow a position."""
    velocity: NDArray[np.int64]
    """(J,) actuators that follow a velocity."""
    hand: int
    """The hand's site."""
    rest: Floats
    """(J,) a posture to prefer: the keyframe ``rest``."""


def arm_of(spec: Any, hand: str = "hand") -> Arm:
    """The arm in a ``mujoco.MjSpec``: its hinges in order, two servos each, the site ``hand``; unnamed geoms get names.

    Raises DFPlannerError when a hinge lacks its servos, or the site, the keyframe ``rest`` or a limit is missing.
    """
    for i, geom in enumerate(spec.geoms):
        geom.name = geom.name or f"geom{i}"
    model = spec.compile()
    joints = [j for j in range(model.njnt) if model.jnt_type[j] == int(mujoco.mjtJoint.mjJNT_HINGE)]  # pyright: ignore
    site = mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_SITE), hand)  # pyright: ignore
    key = mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_KEY), "rest")  # pyright: ignore
    if site < 0 or key < 0 or not joints:
        raise DFPlannerError(f"the model needs hinges, a site {hand!r} and a keyframe 'rest'; one is missing")
    servos: dict[str, list[int]] = {"position": [], "velocity": []}
    for joint in joints:
        of = [a for a in range(model.nu) if model.actuator_trnid[a, 0] == joint]
        for kind, place in (("position", 1), ("velocity", 2)):
            # A position servo's bias is -kp on the position, a velocity servo's is -kv on the velocity alone.
            fit = [a for a in of if (model.actuator_biasprm[a, 1] != 0) == (place == 1)]
            if len(fit) != 1:
                raise DFPlannerError(f"joint {model.joint(joint).name!r} has {len(fit)} {kind} servos; give it one")
            servos[kind] += fit
    qpos = np.array([model.jnt_qposadr[j] for j in joints], np.int64)
    return Arm(
        spec,
        model,
        _limits(model, joints),
        qpos,
        np.array([model.jnt_dofadr[j] for j in joints], np.int64),
        np.array(servos["position"], np.int64),
        np.array(servos["velocity"], np.int64),
        site,
        np.array(model.key_qpos[key][qpos]),
    )


def _limits(model: Any, joints: list[int]) -> JointLimits:
    def numeric(name: str) -> Floats:
        at = mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_NUMERIC), name)  # pyright: ignore
        if at < 0:
            raise DFPlannerError(f"the model has no numeric {name!r}; add one with a number for each joint")
        begin = model.numeric_adr[at]
        return np.array(model.numeric_data[begin : begin + model.numeric_size[at]])

    velocity, acceleration, jerk = (numeric(name) for name in MEASURES)
    low, high = model.jnt_range[joints].T
    effort = model.jnt_actfrcrange[joints, 1]
    return JointLimits(
        tuple(model.joint(j).name for j in joints), low, high, velocity, acceleration, jerk, np.array(effort)
    )


@lru_cache(maxsize=1)
def reach_arm() -> Arm:
    """The bundled arm before its table and obstacles; the model is shared, so leave it as it is."""
    return arm_of(mujoco.MjSpec.from_file(str(REACH_XML)))  # pyright: ignore
