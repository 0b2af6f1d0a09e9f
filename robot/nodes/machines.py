"""What can be simulated and guarded: the bundled arm, any arm in MJCF with position servos, and the maze's ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.collision import CollisionChecker
from dfplanner_envs.arm.limits import Floats, JointLimits
from dfplanner_envs.arm.model import MEASURES, REACH_XML, Arm
from dfplanner_envs.mazes import CELL_OFFSET, DT_S, MAX_SPEED, MAZES, Maze, load_model, maze_of
from dfplanner_robot.checks import Surroundings
from dfplanner_robot.nodes.names import is_maze

Drive = Callable[[Any, Floats, Floats, Floats], None]
"""Sets the controls of a ``mujoco.MjData`` for positions, velocities and accelerations (J,)."""
SWITCH_S = 0.005
"""In which a force of the ball's motors goes from end to end."""
HOLD_HZ = 20.0
"""Of the law that drives the ball: its own frequency in rad/s, critically damped."""


@dataclass(frozen=True, eq=False)
class Machine:
    """A model, and where in it the J joints are that are commanded, as ``arm`` says."""

    name: str
    arm: Arm
    drive: Drive
    start: Floats
    """(nq,) where everything is at first."""
    frame: int
    """The hand's body, if it has no site; seen from the body ``base``."""
    base: int
    maze: Maze | None = None

    @property
    def limits(self) -> JointLimits:
        """Its joints' limits."""
        return self.arm.limits

    def hand_pose(self, data: Any) -> tuple[Floats, Floats]:
        """Position (3,) in metres and quaternion (w, x, y, z) of the hand, seen from the base."""
        if self.maze is not None:  # the ball's coordinates are not the world's
            return np.append(data.qpos, 0.0), np.array([1.0, 0.0, 0.0, 0.0])
        by_site = self.arm.hand >= 0
        place = data.site_xpos[self.arm.hand] if by_site else data.xpos[self.frame]
        turn = (data.site_xmat[self.arm.hand] if by_site else data.xmat[self.frame]).reshape(3, 3)
        base, quaternion = data.xmat[self.base].reshape(3, 3), np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, (base.T @ turn).flatten())  # pyright: ignore
        return base.T @ (place - data.xpos[self.base]), quaternion

    def hand(self) -> Callable[[Floats], Floats]:
        """Hand positions (N, 3) of postures (N, J), for whoever asks from one thread."""
        model, data = self.arm.model, mujoco.MjData(self.arm.model)  # pyright: ignore
        data.qpos[:] = self.start

        def places(q: Floats) -> Floats:
            found = np.empty((len(q), 3))
            for i, row in enumerate(q):
                data.qpos[self.arm.qpos] = row
                mujoco.mj_kinematics(model, data)  # pyright: ignore
                found[i] = self.hand_pose(data)[0]
            return found

        return places

    def surroundings(self, clearance: float, self_clearance: float, box: Floats | None = None) -> Surroundings:
        """What it may touch: nothing, with these distances in metres; ``box``: (2, 3) corners for the hand, or None.

        The ball may touch what it likes. Raises DFPlannerError where something touches at rest already.
        """
        hand = self.hand() if box is not None else None
        if self.maze is not None:
            return Surroundings(None, hand, box)
        checker = CollisionChecker(self.arm, clearance, self_clearance, self.start)
        if near := checker.touching(self.arm.rest):
            pairs = ", ".join(f"{a} and {b} ({far:.3f} m)" for a, b, far in near[:5])
            raise DFPlannerError(
                f"in the rest posture these are too near: {pairs}; exclude such pairs from contact in the model, "
                "add a keyframe 'rest' with another posture, or lessen the clearances"
            )
        return Surroundings(checker, hand, box)


def load(model: str = "", velocity: float = 1.5, acceleration: float = 6.0, jerk: float = 100.0) -> Machine:
    """The machine that ``model`` means: '' the bundled arm, ``maze2d-medium`` a ball in its maze, else a file in MJCF.

    The other numbers are limits, by seconds, for joints of a file that has none of the numerics ``velocity_limit``,
    ``acceleration_limit`` and ``jerk_limit``. Raises DFPlannerError on a file that cannot be read, or has no joints
    with position servos.
    """
    if is_maze(model):
        return _ball(maze_of(model)[0])
    path = Path(model).expanduser() if model else REACH_XML
    if not path.is_file():
        known = ", ".join(f"maze2d-{name}" for name in MAZES)
        raise DFPlannerError(f"there is no model {model!r}; give a file in MJCF, nothing for ours, or one of {known}")
    try:
        spec = mujoco.MjSpec.from_file(str(path))  # pyright: ignore
        return _arm(path.stem if model else "reach", spec, (velocity, acceleration, jerk))
    except ValueError as e:
        raise DFPlannerError(f"{path} cannot be loaded: {e}") from e


def _arm(name: str, spec: Any, defaults: tuple[float, float, float]) -> Machine:
    for i, geom in enumerate(spec.geoms):
        geom.name = geom.name or f"geom{i}"
    model = spec.compile()
    hinge, slide = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)  # pyright: ignore
    on_joint = model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT)  # pyright: ignore
    of = {
        int(j): np.flatnonzero(on_joint & (model.actuator_trnid[:, 0] == j))
        for j in range(model.njnt)
        if model.jnt_type[j] in (hinge, slide)
    }
    pull = model.actuator_biasprm
    position = {j: found for j, a in of.items() if len(found := a[pull[a, 1] < 0])}
    joints = sorted(position)
    bad = [model.joint(j).name or f"joint {j}" for j in joints if len(position[j]) > 1 or not model.joint(j).name]
    if not joints or bad:
        raise DFPlannerError(
            f"joints {bad} have no name or several position servos; give each one of both"
            if bad
            else "no joint has a position servo (<position joint=...>); give each joint of the arm one"
        )
    gravity = not model.body_gravcomp.any()  # a real arm's own controller carries its weight
    root = {int(model.body_rootid[model.jnt_bodyid[j]]) for j in joints}
    if gravity:
        for i in range(1, model.nbody):
            spec.bodies[i].gravcomp = float(int(model.body_rootid[i]) in root)
        model = spec.compile()
    servo = np.array([position[j][0] for j in joints], np.int64)
    speed = {j: [i for i in of[j] if pull[i, 1] == 0 and pull[i, 2] < 0] for j in joints}
    follow = np.array([speed[j][0] for j in joints if speed[j]], np.int64)
    key = next((model.key(n).id for n in ("rest", "home") if _has_key(model, n)), 0 if model.nkey else -1)
    start = np.array(model.key_qpos[key] if key >= 0 else model.qpos0)
    qpos = np.array([model.jnt_qposadr[j] for j in joints], np.int64)
    limits = _limits(model, joints, servo, defaults)
    start[qpos] = np.clip(start[qpos], limits.lower, limits.upper)
    dof = np.array([model.jnt_dofadr[j] for j in joints], np.int64)
    site = next((i for n in ("hand", "attachment_site") if (i := _id(model, "SITE", n)) >= 0), -1)
    arm = Arm(spec, model, limits, qpos, dof, servo, follow, site, start[qpos])
    body = int(model.jnt_bodyid[joints[-1]])
    control = np.array(model.key_ctrl[key]) if key >= 0 else np.zeros(model.nu)
    return Machine(name, arm, _servos(model, joints, of, control), start, body, min(root))


def _id(model: Any, kind: str, name: str) -> int:
    return mujoco.mj_name2id(model, int(getattr(mujoco.mjtObj, f"mjOBJ_{kind}")), name)  # pyright: ignore


def _has_key(model: Any, name: str) -> bool:
    return _id(model, "KEY", name) >= 0


def _limits(model: Any, joints: list[int], servo: NDArray[np.int64], defaults: tuple[float, ...]) -> JointLimits:
    """Ranges of joints and of what their servos can be told; numerics of the model, or the defaults."""
    low, high = np.array(model.jnt_range[joints]).T
    free = ~np.array(model.jnt_limited[joints], bool)
    low, high = np.where(free, -2 * np.pi, low), np.where(free, 2 * np.pi, high)
    told = model.actuator_ctrlrange[servo] / model.actuator_gear[servo, :1]
    limited = np.array(model.actuator_ctrllimited[servo], bool)
    low, high = (
        np.where(limited, np.maximum(low, told.min(1)), low),
        np.where(limited, np.minimum(high, told.max(1)), high),
    )

    def numeric(name: str, default: float) -> Floats:
        at = _id(model, "NUMERIC", name)
        if at < 0:
            return np.full(len(joints), default)
        return np.array(model.numeric_data[model.numeric_adr[at] :][: model.numeric_size[at]])

    speed, push, jerk = (numeric(*pair) for pair in zip(MEASURES, defaults, strict=True))
    by_joint, by_servo = model.jnt_actfrcrange[joints, 1], model.actuator_forcerange[servo, 1]
    effort = np.where(by_joint > 0, by_joint, np.where(by_servo > 0, by_servo, np.inf))
    return JointLimits(tuple(model.joint(j).name for j in joints), low, high, speed, push, jerk, effort)


def _servos(model: Any, joints: list[int], of: dict[int, NDArray[np.int64]], control: Floats) -> Drive:
    """Tells each servo of a joint what makes it exert nothing when the joint is where, and as fast as, it should be."""
    pairs = [(i, k) for k, j in enumerate(joints) for i in of[j] if model.actuator_biasprm[i, 1:3].any()]
    ids, column = (np.array(x, np.int64) for x in zip(*pairs, strict=True))
    gear, gain = model.actuator_gear[ids, 0], model.actuator_gainprm[ids, 0]
    zeroth, first, second = (model.actuator_biasprm[ids, k] for k in range(3))

    def drive(data: Any, q: Floats, v: Floats, a: Floats) -> None:
        data.ctrl[:] = control
        data.ctrl[ids] = -(zeroth + gear * (first * q[column] + second * v[column])) / gain

    return drive


def _ball(maze: Maze) -> Machine:
    """D4RL's ball as two joints that slide; what drives it is the force of its motors.

    Its limits are theirs: a step adds so much to the speed at which the environment clips it, less the damping there is
    so much to accelerate with, and forces, which switch at once, are given half a step from end to end.
    """
    model = load_model(maze)
    rows, columns = maze.walls.shape
    mass, gear = np.array(model.dof_M0), np.array(model.actuator_gear[:, 0])
    damping = np.array(model.dof_damping)
    low = np.full(2, 0.5 - CELL_OFFSET)
    top = MAX_SPEED + DT_S * gear / mass
    push = (gear - damping * top) / mass
    limits = JointLimits(
        ("ball_x", "ball_y"),
        low,
        np.array([rows, columns]) - 1.5 - CELL_OFFSET,
        top,
        push,
        2 * push / SWITCH_S,
        gear,
    )

    def drive(data: Any, q: Floats, v: Floats, a: Floats) -> None:
        np.clip(data.qvel, -MAX_SPEED, MAX_SPEED, out=data.qvel)  # as the environment has it
        # What is wanted is so after this step, what is measured is before it.
        pull = a + HOLD_HZ**2 * (q - DT_S * v - data.qpos) + 2 * HOLD_HZ * (v - DT_S * a - data.qvel)
        data.ctrl[:] = np.clip((mass * pull + damping * v) / gear, -1.0, 1.0)

    both = np.arange(2)
    first = np.array(maze.free_cells[0], np.float64) - CELL_OFFSET
    arm = Arm(None, model, limits, both, both, both, both[:0], -1, first)
    return Machine(maze.name, arm, drive, first, int(model.jnt_bodyid[0]), 0, maze)
