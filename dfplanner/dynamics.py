"""Where the committed actions lead: what a plan that begins after them has to know.

A planner foresees in chunks, from data that only ever did what was right; within a chunk, and for actions that it would
not have chosen, a model of one step is both simpler and sharper. ``LinearDynamics`` is the one that ships; a robot's
own integrator is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dfplanner.data.episodes import Episodes
from dfplanner.types import DFPlannerError

Step = tuple[NDArray, NDArray]
"""Observations (B, obs), and the actions (B, act) then done."""

STEPS_STUCK = 3
"""Steps in a row that must not have gone as they should for something to be in the way."""


class Dynamics(Protocol):
    """Predicts what will be observed."""

    def predict(self, observation: NDArray, actions: NDArray, recent: Sequence[Step] = ()) -> NDArray[np.float64]:
        """Observations (B, obs) after actions (B, n, act) from observations (B, obs); ``recent``: the steps before."""
        ...


@dataclass(frozen=True)
class LinearDynamics:
    """o' = o + [o, a, 1] W: exact for masses, dampers and springs. Walls it only knows by having run into them.

    weights (obs + act + 1, obs); low and high (act,): the actions' limits, to which they are clipped; usual (obs,): a
    large change in one step. A number that should have changed by more than a quarter of that in each of the last three
    steps, and did not do a fifth of it, is taken to be blocked in that direction.
    """

    weights: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    usual: NDArray[np.float64]

    @classmethod
    def fit(cls, episodes: Episodes, ridge: float = 1e-9) -> LinearDynamics:
        """Least squares over the steps within episodes; raises DFPlannerError if these are fewer than the unknowns."""
        o, a = (np.asarray(x, np.float64) for x in (episodes.observations, episodes.actions))
        within = np.ones(len(o) - 1, bool)
        within[episodes.starts[1:] - 1] = False
        x = np.hstack([o, a, np.ones((len(o), 1))])[:-1][within]
        if len(x) < x.shape[1]:
            raise DFPlannerError(
                f"{len(x)} steps within episodes were given to fit {x.shape[1]} numbers each; give more"
            )
        y = (o[1:] - o[:-1])[within]
        unit = np.maximum(np.abs(x).max(0), 1e-9)
        x = x / unit
        w = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ y) / unit[:, None]
        return cls(w, a.min(0), a.max(0), np.percentile(np.abs(y), 95, axis=0))

    def predict(self, observation: NDArray, actions: NDArray, recent: Sequence[Step] = ()) -> NDArray[np.float64]:
        """Observations (B, obs) after actions (B, n, act) from observations (B, obs); ``recent``: the steps before."""
        o = np.array(observation, np.float64)
        blocked = self._blocked(o, recent)
        for a in np.swapaxes(actions, 0, 1):
            change = self._change(o, a)
            o = o + np.where(np.sign(change) == blocked, 0, change)
        return o

    def _change(self, o: NDArray, a: NDArray) -> NDArray[np.float64]:
        """What one step with actions (B, act) adds to observations (B, obs)."""
        return np.hstack([o, np.clip(a, self.low, self.high), np.ones((len(o), 1))]) @ self.weights

    def _blocked(self, now: NDArray, recent: Sequence[Step]) -> NDArray[np.float64]:
        """(B, obs) +1 or -1: the direction in which a number cannot change; 2: none."""
        recent = recent[-STEPS_STUCK:]
        seen = [np.asarray(o, np.float64) for o, _ in recent] + [now]
        way = np.full(now.shape, 2.0)
        if len(recent) < STEPS_STUCK:
            return way
        due = np.stack([self._change(o, a) for o, (_, a) in zip(seen, recent, strict=False)])
        done = np.diff(np.stack(seen), axis=0)
        sign = np.sign(due[-1])
        stuck = (due * sign > 0.25 * self.usual) & (done * sign < 0.2 * due * sign)
        return np.where(stuck.all(0), sign, way)
