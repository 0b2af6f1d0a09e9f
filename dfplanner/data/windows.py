"""Windows of tokens cut from episodes, reproducible by step number alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfplanner.data.episodes import Episodes
from dfplanner.data.tokens import Tokenizer
from dfplanner.data.ways import Ways
from dfplanner.types import Array, DFPlannerError, TokenSpec


class Batch(NamedTuple):
    """Windows drawn for training, in environment units."""

    states: Tensor
    """(n, horizon, obs)."""
    chunks: Tensor
    """(n, horizon - 1, chunk, act) the actions between them."""
    goals: Tensor
    """(n, g)."""
    pace: Tensor
    """(n, 2); NaN: unknown."""
    led: Tensor
    """(n,) how many tokens lead to the goal; those after them went elsewhere."""


@dataclass
class Windows:
    """Draws training windows: ``horizon`` observations one chunk apart, the chunks between them, and the goal.

    A window may start anywhere in an episode up to ``after_arrival`` steps past its arrival; where it outruns the
    episode the last step repeats (in data that stays, the last step is at rest, so this is what would have happened).
    In data that does not stay windows lie inside their episode. ``hindsight`` is the share of windows whose goal is
    replaced by a position reached later, on the way to the goal pursued, or inside the window where none is known
    (Andrychowicz et al. 2017). ``shortest``: the share whose goal is anywhere that their first tokens are on a shortest
    way to (``dfplanner.data.ways``), places being cubes of edge ``place``.
    """

    episodes: Episodes
    spec: TokenSpec
    after_arrival: int = 30
    at_start: float = 0.1
    """Share of windows that begin where their episode does: a state at rest, about to leave, is rare elsewhere."""
    hindsight: float = 0.0
    shortest: float = 0.0
    place: float = 1.0
    stay: bool = True
    pace: Array | None = None
    """(N, 2) how fast each row went on to its goal (``dfplanner.data.pace``); None: unknown everywhere."""
    _low: NDArray[np.int64] = field(init=False)
    _count: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        e, need = self.episodes, self.length
        self._goals = _checked_goals(e, self.spec)
        begin = np.asarray(e.starts, np.int64)
        end = np.append(begin[1:], len(e.observations))
        if self.stay:
            arrival = end - begin - 1 if e.arrival is None else np.where(e.arrival >= 0, e.arrival, end - begin - 1)
            count = np.minimum(arrival + self.after_arrival, end - begin)
        else:
            count = end - begin - need + 1
        if not (count > 0).any():
            raise DFPlannerError(
                f"no episode is as long as one window of {need} steps (horizon {self.spec.horizon} x chunk "
                f"{self.spec.chunk}); the longest has {int((end - begin).max())}: choose a smaller horizon or collect "
                "longer episodes"
            )
        self._low, self._count, self._end = begin, np.maximum(count, 0), end
        self._cum = np.cumsum(self._count)
        self._until = _until(self._goals, begin)
        self._ways = Ways(e.observations[:, list(self.spec.pos)], begin, self.place) if self.shortest > 0 else None

    @property
    def length(self) -> int:
        """Environment steps a window spans, its first observation included."""
        return (self.spec.horizon - 1) * self.spec.chunk + 1

    def indices(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows (n, length) of the episodes' arrays, and each window's episode."""
        flat = rng.integers(0, self._cum[-1], n)
        episode = np.searchsorted(self._cum, flat, side="right")
        start = self._low[episode] + flat - (self._cum[episode] - self._count[episode])
        if self.stay:
            start = np.where(rng.random(n) < self.at_start, self._low[episode], start)
        rows = start[:, None] + np.arange(self.length)
        return np.minimum(rows, self._end[episode][:, None] - 1), episode

    def draw(self, n: int, rng: np.random.Generator) -> Batch:
        """n windows; the same generator gives the same."""
        e, s = self.episodes, self.spec
        rows, episode = self.indices(n, rng)
        states = e.observations[rows[:, :: s.chunk]]
        chunks = e.actions[rows[:, :-1]].reshape(n, s.horizon - 1, s.chunk, s.act_dim)
        pos = list(s.pos)
        goals = self._goals[rows[:, 0]]
        unknown = np.logical_or.reduce(np.isnan(goals), axis=1)
        goals[unknown] = states[unknown, -1][:, pos]
        if self.hindsight > 0:
            swap = np.flatnonzero(rng.random(n) < self.hindsight)
            first, last = rows[swap, 0], np.where(unknown[swap], rows[swap, -1], self._until[rows[swap, 0]])
            when = rng.integers(first + 1, np.maximum(last, first + 1) + 1)
            goals[swap] = e.observations[np.minimum(when, self._end[episode[swap]] - 1)][:, pos]
        led = np.full(n, s.horizon)
        if self._ways is not None:
            swap = np.flatnonzero(rng.random(n) < self.shortest)
            ahead, far = self._ways.goal_rows(rows[swap, :: s.chunk], rng)
            able = far > 0
            goals[swap[able]], led[swap[able]] = e.observations[ahead[able]][:, pos], far[able]
        pace = np.full((n, 2), np.nan, np.float32) if self.pace is None else self.pace[rows[:, 0]]
        return Batch(*map(torch.from_numpy, (states, chunks, goals, pace, led)))

    def fit_tokenizer(self, rng: np.random.Generator, n: int = 4096) -> Tokenizer:
        """A tokenizer fitted on n windows."""
        states, chunks, *_ = self.draw(n, rng)
        return Tokenizer.fit(
            self.spec,
            states.reshape(-1, self.spec.obs_dim).numpy(),
            chunks.reshape(-1, self.spec.chunk, self.spec.act_dim).numpy(),
        )


def _until(goals: Array, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the row at which what is pursued at each row was reached or given up: the first with another goal."""
    go_on = (goals[1:] == goals[:-1]).all(1)
    go_on[starts[1:] - 1] = False
    last = np.append(np.flatnonzero(~go_on), len(goals) - 1)
    ends = last[np.searchsorted(last, np.arange(len(goals)))]
    inside = np.append(starts[1:], len(goals))[np.searchsorted(starts, ends, side="right") - 1] - 1
    return np.minimum(ends + 1, inside)


def _checked_goals(e: Episodes, spec: TokenSpec) -> Array:
    """The goals (N, len(pos)); raises DFPlannerError unless they are values for the position."""
    if max(spec.pos, default=0) >= spec.obs_dim or not spec.pos:
        raise DFPlannerError(
            f"the position is the numbers {spec.pos} of an observation, which has {spec.obs_dim}; say in the data's "
            'meta which they are: {"pos": [0]}'
        )
    if e.goals.shape[1] == len(spec.pos):
        return e.goals
    if not np.isnan(e.goals).all():
        raise DFPlannerError(
            f"the data's goals are {e.goals.shape[1]} numbers, but the position is the numbers {spec.pos} of an "
            'observation; say in its meta which they are ("pos"), or make the goals NaN'
        )
    return np.full((e.steps, len(spec.pos)), np.nan, np.float32)
