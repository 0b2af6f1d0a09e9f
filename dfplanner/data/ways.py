"""Shortest ways between places, as far as episodes went them: goals for windows that no episode pursued.

A window shows the way to every place that its first tokens lead towards, not only to where its own episode went on to:
what lies ahead is read off a graph of the places visited, whose edges are the moves made. So pairs of place and goal that one
episode never joined are learnt too, such as a goal behind the wall beside the start. Related: search on a replay buffer
(Eysenbach et al. 2019, arXiv:1906.05253), stitching by goal augmentation (Ghugare et al. 2024, arXiv:2401.11237).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import Array, DFPlannerError

MOST_PLACES = 6000
"""A distance between each two is kept: 4 bytes each."""
SLACK = 0.05
"""Share by which a way may be longer than the shortest, beside two places."""
MOST_DETOUR = 4.0
"""Ways so many times as long as the straight line, and longer ones, come oftenest."""


class Ways:
    """positions (N, g), in episodes that begin at ``starts``; places are cubes of edge ``size``, in their units.

    Raises DFPlannerError if that makes too many places, or the size is not above 0.
    """

    def __init__(self, positions: Array, starts: NDArray[np.int64], size: float) -> None:
        if not size > 0:
            raise DFPlannerError(f"places of size {size} came; expected one above 0, a fraction of a corridor's width")
        cubes, node = np.unique(np.floor(positions / size).astype(np.int64), axis=0, return_inverse=True)
        if len(cubes) > MOST_PLACES:
            raise DFPlannerError(f"places of size {size} are {len(cubes)}, more than {MOST_PLACES}; make them larger")
        self.size = size
        self.node = node.reshape(-1)
        """(N,) the place of each row."""
        within = np.ones(len(positions) - 1, bool)
        within[np.asarray(starts[1:]) - 1] = False
        moves = np.stack([self.node[:-1], self.node[1:]], 1)[within & (self.node[:-1] != self.node[1:])]
        self._place = cubes * size
        self.distance = _shortest(len(cubes), np.unique(moves, axis=0), self._place)
        """(n, n) length of the shortest way from each place to each, infinite where there is none."""

    def goal_rows(
        self, rows: NDArray[np.int64], rng: np.random.Generator, tries: int = 32
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For windows, given as the rows (n, T) of their tokens: rows (n,) of goals they lead to, and how far they do.

        Tokens lead to a goal as long as what they went and what is left are together no longer than a shortest way from
        the first; once there, all do. Second (n,): the number of tokens that do, 0 if no goal was found.
        """
        d, at = self.distance, self.node[rows]
        drawn = rng.integers(0, len(self.node), (len(rows), tries))
        goal = self.node[drawn]
        whole = d[at[:, 0, None], goal]  # (n, tries)
        left = d[at[:, :, None], goal[:, None]]  # (n, T, tries)
        near = 2 * self.size
        went = np.cumsum(d[at[:, :-1], at[:, 1:]], axis=1)
        went = np.concatenate([np.zeros_like(went[:, :1]), went], axis=1)[:, :, None]
        on_way = went + left <= (1 + SLACK) * whole[:, None] + near
        been = np.logical_or.accumulate(left <= near, axis=1)
        led = np.logical_and.accumulate(on_way | been, axis=1).sum(axis=1)
        last = np.maximum(led - 1, 0)[:, None]
        comes_nearer = np.take_along_axis(been | (left <= whole[:, None] - near), last, 1)[:, 0]
        good = (led > 1) & comes_nearer & np.isfinite(whole) & (whole > near)
        # Weighted sampling (Efraimidis and Spirakis 2006): the more of a detour, the oftener, for these are rare.
        apart = np.linalg.norm(self._place[at[:, 0, None]] - self._place[goal], axis=2)
        weight = np.where(good, np.minimum(whole / np.maximum(apart, self.size), MOST_DETOUR), 1.0) ** 2
        chosen = np.where(good, rng.random(good.shape) ** (1 / weight), -1.0).argmax(axis=1)
        pick = chosen[:, None]
        return np.take_along_axis(drawn, pick, 1)[:, 0], np.take_along_axis(np.where(good, led, 0), pick, 1)[:, 0]


def _shortest(n: int, moves: NDArray[np.int64], place: NDArray[np.floating]) -> Array:
    """Distances (n, n) along moves (m, 2), as long as their places (n, g) are apart: Bellman and Ford, all at once."""
    length = np.linalg.norm(place[moves[:, 0]] - place[moves[:, 1]], axis=1).astype(np.float32)
    out = np.bincount(moves[:, 0], minlength=n)
    most = int(out.max(initial=1))
    ahead, cost = np.tile(np.arange(n)[:, None], (1, most)), np.full((n, most), np.inf, np.float32)
    slot = np.arange(len(moves)) - np.repeat(np.cumsum(out) - out, out)  # moves are sorted by where they begin
    ahead[moves[:, 0], slot], cost[moves[:, 0], slot] = moves[:, 1], length
    d = np.full((n, n), np.inf, np.float32)
    np.fill_diagonal(d, 0.0)
    while True:
        new = d.copy()
        for k in range(most):
            np.minimum(new, cost[:, k, None] + d[ahead[:, k]], out=new)
        if np.array_equal(new, d):
            return d
        d = new
