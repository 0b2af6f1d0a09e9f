"""Whether a posture touches itself, the table or an obstacle, or comes too near: asked of MuJoCo."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.model import Arm


def collidable(model: Any) -> list[tuple[int, int, bool]]:
    """The pairs of geoms that may touch, and whether both move: MuJoCo's own filter, spelt out.

    Left out are pairs on one body, on a body and its parent, between things at rest, and those the model excludes.
    """
    weld, parent = model.body_weldid, model.body_parentid
    excluded = {(int(s) >> 16, int(s) & 0xFFFF) for s in model.exclude_signature}
    found = []
    for a in range(model.ngeom):
        for b in range(a + 1, model.ngeom):
            i, j = int(model.geom_bodyid[a]), int(model.geom_bodyid[b])
            u, v = int(weld[i]), int(weld[j])
            near = u == v or (u and v and (weld[parent[u]] == v or weld[parent[v]] == u))
            masks = (model.geom_contype[a] & model.geom_conaffinity[b]) | (
                model.geom_contype[b] & model.geom_conaffinity[a]
            )
            if not near and masks and (i, j) not in excluded and (j, i) not in excluded:
                found.append((a, b, bool(u and v)))
    return found


class CollisionChecker:
    """Postures of an arm against its scene and itself, with distances to keep.

    ``clearance``: metres to keep from what does not move; ``self_clearance``: between links that are not neighbours.
    ``start`` (nq,): where what is none of the arm's joints stays, such as fingers; None: as the model has it.
    The scene is read once; what the model excludes from contact stays excluded.
    """

    def __init__(
        self, arm: Arm, clearance: float = 0.0, self_clearance: float = 0.0, start: ArrayLike | None = None
    ) -> None:
        self.arm, self.clearance, self.self_clearance = arm, clearance, self_clearance
        # MuJoCo's test of two boxes overlooks some that are near and do not touch: these are measured.
        box, kind = int(mujoco.mjtGeom.mjGEOM_BOX), arm.model.geom_type  # pyright: ignore
        self._boxes = [pair for pair in collidable(arm.model) if kind[pair[0]] == kind[pair[1]] == box]
        self._model = self._only_pairs()
        self._data = mujoco.MjData(self._model)  # pyright: ignore
        if start is not None:
            self._data.qpos[:] = start

    def _only_pairs(self) -> Any:
        """The scene once more, in which exactly our pairs are tested, each with its own margin."""
        spec, name = self.arm.spec.copy(), self.arm.model.geom
        for geom in spec.geoms:
            geom.contype = geom.conaffinity = 0
        for a, b, own in collidable(self.arm.model):
            margin = self.self_clearance if own else self.clearance
            spec.add_pair(geomname1=name(a).name, geomname2=name(b).name, margin=margin, condim=1)
        return spec.compile()

    def free(self, q: ArrayLike) -> NDArray[np.bool_]:
        """(N,) whether each posture (N, J) keeps its distances; a single posture (J,) gives a single answer."""
        q = np.asarray(q, np.float64)
        if q.ndim == 1:
            return np.bool_(self._free(q))  # pyright: ignore[reportReturnType]
        return np.array([self._free(row) for row in q], bool)

    def _free(self, q: Floats) -> bool:
        data = self._data
        data.qpos[self.arm.qpos] = q
        mujoco.mj_kinematics(self._model, data)  # pyright: ignore
        mujoco.mj_collision(self._model, data)  # pyright: ignore
        return data.ncon == 0 and not any(self._gap(*pair) < 0 for pair in self._boxes)

    def _gap(self, a: int, b: int, own: bool) -> float:
        """How much farther than they must two geoms of the present posture are apart, up to a metre."""
        far = mujoco.mj_geomDistance(self._model, self._data, a, b, 1.0, None)  # pyright: ignore
        return far - (self.self_clearance if own else self.clearance)

    def touching(self, q: ArrayLike) -> list[tuple[str, str, float]]:
        """The pairs of geoms nearer than they should be in a posture (J,), with their distances in metres."""
        self._free(np.asarray(q, np.float64))
        gaps = [
            (a, b, self._gap(a, b, False) + self.clearance) for a, b, own in self._boxes if self._gap(a, b, own) < 0
        ]
        nearest: dict[tuple[str, str], float] = {}
        for a, b, far in [(c.geom1, c.geom2, float(c.dist)) for c in self._data.contact] + gaps:
            pair = self._model.geom(a).name, self._model.geom(b).name
            nearest[pair] = min(far, nearest.get(pair, far))
        return [(*pair, far) for pair, far in nearest.items()]

    def segment_free(self, a: ArrayLike, b: ArrayLike, step: float = 0.05) -> bool:
        """Whether the straight line between two postures (J,) is free, seen every ``step`` radians or finer."""
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        n = max(1, math.ceil(float(np.linalg.norm(b - a)) / step))
        # Coarse to fine: what is blocked is found early.
        seen: set[int] = set()
        stride = 1 << n.bit_length()
        while stride:
            for k in range(0, n + 1, stride):
                if k not in seen:
                    seen.add(k)
                    if not self._free(a + (b - a) * (k / n)):
                        return False
            stride >>= 1
        return True

    def path_free(self, points: ArrayLike, step: float = 0.05) -> bool:
        """Whether the polyline through postures (N, J) is free."""
        points = np.asarray(points, np.float64)
        return all(self.segment_free(a, b, step) for a, b in itertools.pairwise(points))
