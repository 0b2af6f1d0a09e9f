"""The arm's kinematics for many postures at once, and inverse kinematics on it: damped least squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.model import Arm


def _rotation(quat: Floats) -> Floats:
    """The matrix (3, 3) of a unit quaternion (w, x, y, z)."""
    w, (x, y, z) = quat[0], quat[1:]
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _cross(v: Floats) -> Floats:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


@dataclass(frozen=True, eq=False)
class Chain:
    """From the base to the hand: hinges with what lies between them, as matrices; read from a model.

    Joint j turns about ``axes[j]`` through ``points[j]`` of a frame that the one before places by ``offset[j]``,
    ``turn[j]``; the hand is at ``tip`` in the last.
    """

    offset: Floats
    turn: Floats
    points: Floats
    axes: Floats
    tip: Floats

    @classmethod
    def of(cls, arm: Arm) -> Chain:
        """The chain of an arm whose bodies follow one another from the world to the hand."""
        m = arm.model
        place, turn = np.array(m.site_pos[arm.hand]), np.eye(3)
        body, found = int(m.site_bodyid[arm.hand]), []
        tip: Floats | None = None
        while body:
            if m.body_jntnum[body]:
                joint = int(m.body_jntadr[body])
                if tip is None:
                    tip, place, turn = place, np.zeros(3), np.eye(3)
                else:
                    found[-1] += [place, turn]
                    place, turn = np.zeros(3), np.eye(3)
                found.append([np.array(m.jnt_pos[joint]), np.array(m.jnt_axis[joint])])
            spin = _rotation(m.body_quat[body])
            place, turn = m.body_pos[body] + spin @ place, spin @ turn
            body = int(m.body_parentid[body])
        found[-1] += [place, turn]
        points, axes, offset, turns = (np.array(x) for x in zip(*found[::-1], strict=True))
        assert tip is not None
        return cls(offset, turns, points, axes, tip)

    def _frames(self, q: Floats) -> tuple[Floats, Floats, Floats]:
        """World anchors and axes of the joints (J, N, 3), and the hand (N, 3)."""
        n, joints = q.shape
        spin, place = np.broadcast_to(np.eye(3), (n, 3, 3)), np.zeros((n, 3))
        anchors, axes = np.empty((joints, n, 3)), np.empty((joints, n, 3))
        for j in range(joints):
            place = place + spin @ self.offset[j]
            spin = spin @ self.turn[j]
            anchors[j], axes[j] = place + spin @ self.points[j], spin @ self.axes[j]
            k = _cross(self.axes[j])
            about = np.eye(3) + np.sin(q[:, j, None, None]) * k + (1 - np.cos(q[:, j, None, None])) * (k @ k)
            spin = spin @ about
            place = anchors[j] - spin @ self.points[j]
        return anchors, axes, place + spin @ self.tip

    def hand(self, q: ArrayLike) -> Floats:
        """Hand positions (..., 3) in metres for joint positions (..., J)."""
        q = np.asarray(q, np.float64)
        return self._frames(q.reshape(-1, q.shape[-1]))[2].reshape(*q.shape[:-1], 3)

    def jacobian(self, q: ArrayLike) -> tuple[Floats, Floats]:
        """Hand positions (N, 3) and their derivatives (N, 3, J) for joint positions (N, J)."""
        anchors, axes, hand = self._frames(np.asarray(q, np.float64))
        return hand, np.moveaxis(np.cross(axes, hand - anchors), 0, 2)


def solve(
    chain: Chain,
    targets: ArrayLike,
    guess: ArrayLike,
    rest: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    bias: float = 0.1,
    damping: float = 0.03,
    steps: int = 150,
    tolerance: float = 1e-4,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Joint positions (N, J) with the hand at ``targets`` (N, 3), and whether it is, within ``tolerance`` metres.

    Damped least squares from ``guess`` (N, J), pulled in the null space towards ``rest`` (N, J) by the share ``bias``
    of the way at each step, inside ``lower`` and ``upper`` (J,). The same input gives the same posture.
    """
    q, targets, rest = np.array(guess, np.float64), np.asarray(targets, np.float64), np.asarray(rest, np.float64)
    eye = np.eye(q.shape[1])
    for i in range(steps):
        hand, jac = chain.jacobian(q)
        error = targets - hand
        # The last steps close the distance alone: the pull's second-order error would stay otherwise.
        pull = bias * (rest - q) if i < steps - 15 else np.zeros_like(q)
        inverse = jac.swapaxes(1, 2) @ np.linalg.inv(jac @ jac.swapaxes(1, 2) + damping**2 * np.eye(3))
        null = eye - inverse @ jac
        step = (inverse @ error[:, :, None] + null @ pull[:, :, None])[:, :, 0]
        q = np.clip(q + np.clip(step, -0.3, 0.3), lower, upper)
    return q, np.linalg.norm(targets - chain.hand(q), axis=1) < tolerance
