"""Collision-free paths between postures: a probabilistic roadmap of answers to goals, searched, shortened, rounded.

Source: Kavraki et al. 1996, "Probabilistic roadmaps for path planning in high-dimensional configuration spaces".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.task import ReachTask, reach_task

Sees = Callable[[Floats, Floats], bool]
NODES, NEIGHBOURS, DOORS = 300, 14, 40
"""Postures in the roadmap, edges tried from each, and nodes tried as the way in and out of it."""


class Roadmap:
    """Paths for one scene. Nodes answer random places, so what passes through them looks like what the data ends in.

    The same start and end always give the same path: the straight line where it is free, else the shortest way over
    the roadmap, shortened as far as the eye can see.
    """

    def __init__(self, task: ReachTask, seed: int = 0, nodes: int = NODES) -> None:
        self.task = task
        rng, found = np.random.default_rng(seed), np.empty((0, len(task.arm.limits)))
        while len(found) < nodes:
            places = task.places(nodes, rng)
            places[:, 2] += 0.1  # the way round something is more often over it
            q, ok = task.posture(places)
            found = np.concatenate([found, q[ok]])
        self.nodes = found[:nodes]
        self._after, self._far = self._shortest(self._edges())

    def _edges(self) -> Floats:
        """(n, n) lengths of the free edges; infinite where there is none."""
        apart = np.linalg.norm(self.nodes[:, None] - self.nodes[None], axis=2)
        edges = np.full_like(apart, np.inf)
        np.fill_diagonal(edges, 0.0)
        for i, row in enumerate(apart):
            for j in np.argsort(row)[1 : NEIGHBOURS + 1]:
                if np.isinf(edges[i, j]) and self.task.checker.segment_free(self.nodes[i], self.nodes[j]):
                    edges[i, j] = edges[j, i] = apart[i, j]
        return edges

    @staticmethod
    def _shortest(far: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Floyd and Warshall: (n, n) which node comes after i on the way to j, and how long that way is."""
        n = len(far)
        after = np.where(np.isfinite(far), np.arange(n)[None], -1)
        for k in range(n):
            through = far[:, k, None] + far[k]
            shorter = through < far
            far = np.where(shorter, through, far)
            after = np.where(shorter, after[:, k, None], after)
        return after, far

    def path(self, start: Floats, end: Floats) -> Floats | None:
        """Postures (K, J) from start to end, the polyline through which is free; None where none was found."""
        see = self.task.checker.segment_free
        # What is nearer to something than it should be may leave, but not come nearer still.
        checkers = self.task.checker, self.task.rounded, self.task.near
        leave = next((c for c in checkers if c.free(start)), self.task.near).segment_free
        if leave(start, end):
            return np.stack([start, end])
        (into, d_in), (out, d_out) = (self._doors(q) for q in (start, end))
        cost = d_in[:, None] + self._far[np.ix_(into, out)] + d_out
        open_in, open_out = {}, {}
        for flat in np.argsort(cost, axis=None, kind="stable"):
            i, j = divmod(int(flat), len(out))
            if np.isinf(cost[i, j]):
                return None
            a, b = int(into[i]), int(out[j])
            if a not in open_in:
                open_in[a] = leave(start, self.nodes[a])
            if open_in[a] and b not in open_out:
                open_out[b] = see(self.nodes[b], end)
            if open_in[a] and open_out[b]:
                way = [a]
                while way[-1] != b:
                    way.append(int(self._after[way[-1], b]))
                return self._shortened(np.stack([start, *self.nodes[way], end]), leave)
        return None

    def _doors(self, q: Floats) -> tuple[NDArray[np.int64], Floats]:
        apart = np.linalg.norm(self.nodes - q, axis=1)
        near = np.argsort(apart, kind="stable")[:DOORS]
        return near, apart[near]

    def _shortened(self, points: Floats, leave: Sees, step: float = 0.35) -> Floats:
        """From each point straight on to the last that can be seen, points being set every ``step`` radians or so."""
        fine = [points[:1]]
        for a, b in itertools.pairwise(points):
            n = max(1, int(np.ceil(np.linalg.norm(b - a) / step)))
            fine.append(a + (b - a) * (np.arange(1, n + 1) / n)[:, None])
        dense = np.concatenate(fine)
        kept, at = [0], 0
        while at < len(dense) - 1:
            see = self.task.checker.segment_free if at else leave
            at = next((k for k in range(len(dense) - 1, at + 1, -1) if see(dense[at], dense[k])), at + 1)
            kept.append(at)
        return dense[kept]


@lru_cache(maxsize=1)
def reach_roadmap() -> Roadmap:
    """The bundled scene's roadmap, made once in a process (some seconds)."""
    return Roadmap(reach_task())
