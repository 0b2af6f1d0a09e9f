"""Many copies of the arm in MuJoCo, driven by joint velocities as a trajectory controller drives one."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import mujoco.batch
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner_envs.arm.ik import Chain
from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.model import Arm

DT_S = 0.05
"""Seconds of a control step."""

SPEED_SHARE, PUSH_SHARE = 0.95, 0.45
"""Of the limits, what is commanded at most: servos overshoot, and joints push one another."""
END_RAD = 0.02
"""Radians before a joint's end where the reference stops."""


@dataclass(frozen=True)
class Happened:
    """What N arms did in a step, each (N,)."""

    collision: NDArray[np.bool_]
    """Something touched."""
    violation: NDArray[np.bool_]
    """A joint was measured beyond its position, velocity or acceleration limit, at any tick of the simulation."""
    clamped: NDArray[np.bool_]
    """The command asked for more than the limits allow, and got what they allow."""


class ArmSim:
    """N arms. A command is the joint velocity to have at the end of the step; the reference goes there linearly, its
    integral is the position to hold, and two servos a joint follow both.

    Raises ValueError from MuJoCo where the model cannot be simulated.
    """

    def __init__(self, arm: Arm, chain: Chain, n: int, threads: int = 1) -> None:
        self.arm, self.chain, self.n = arm, chain, n
        self.ticks = round(DT_S / arm.model.opt.timestep)
        self._batch = mujoco.batch.Batch(arm.model, n, threads)
        self._qpos, self._qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._warm = self._batch.bind("qacc_warmstart")
        self.reference = np.tile(arm.rest, (n, 1))
        self.speed = np.zeros_like(self.reference)
        self.put(np.arange(n), self.reference)

    @property
    def q(self) -> Floats:
        """(N, J) measured joint positions."""
        return self._qpos[:, self.arm.qpos]

    @property
    def qd(self) -> Floats:
        """(N, J) measured joint velocities."""
        return self._qvel[:, self.arm.dof]

    def observation(self) -> Floats:
        """(N, 3 + 2 J): the hand in metres, joint positions, joint velocities."""
        q = self.q
        return np.concatenate([self.chain.hand(q), q, self.qd], axis=1)

    def put(self, ids: NDArray[np.int64], q: ArrayLike, qd: ArrayLike = 0.0) -> None:
        """Set arms ``ids`` in postures (len(ids), J), at rest or with velocities (len(ids), J)."""
        self.reference[ids], self.speed[ids] = q, qd
        rows, rates = self._qpos[ids], self._qvel[ids]
        rows[:, self.arm.qpos], rates[:, self.arm.dof] = q, qd
        self._qpos[ids], self._qvel[ids], self._warm[ids] = rows, rates, 0.0

    def allowed(self, wanted: Floats) -> Floats:
        """The velocities (N, J) nearest to ``wanted`` that the limits allow next."""
        limits = self.arm.limits
        return limits.reachable(self.reference, self.speed, wanted, DT_S, SPEED_SHARE, PUSH_SHARE, END_RAD)

    def step(self, wanted: Floats) -> Happened:
        """One control step towards joint velocities (N, J) in rad/s."""
        v, limits, n = self.allowed(wanted), self.arm.limits, self.n
        clamped = (np.abs(v - wanted) > 1e-6).any(axis=1)
        part = (np.arange(1, self.ticks + 1) / self.ticks)[None, :, None]
        speed = self.speed[:, None] + part * (v - self.speed)[:, None]
        place = self.reference[:, None] + DT_S * part * (self.speed[:, None] + speed) / 2
        control = np.zeros((n, self.ticks, self.arm.model.nu))
        control[:, :, self.arm.position], control[:, :, self.arm.velocity] = place, speed
        before = self.qd
        seen = self._batch.rollout(self.ticks, control, record=("qpos", "qvel", "ncon"), control_spec=CTRL)
        self.reference, self.speed = place[:, -1], v
        qd = seen["qvel"][:, :, self.arm.dof]
        qdd = np.diff(np.concatenate([before[:, None], qd], 1), axis=1) / self.arm.model.opt.timestep
        beyond = limits.exceeded(seen["qpos"][:, :, self.arm.qpos], qd, qdd, tolerance=1e-3)
        touched = seen["ncon"].reshape(n, -1).any(1)
        return Happened(*(np.asarray(x, bool) for x in (touched, beyond.any(axis=(1, 2)), clamped)))


CTRL = int(mujoco.mjtState.mjSTATE_CTRL)  # pyright: ignore
