"""Where the committed actions lead: what a plan that begins after them has to know.

A planner foresees in chunks, from data that only ever did what was right; within a chunk, and for actions that it would
not have chosen, a model of one step is both simpler and sharper. ``LinearDynamics`` is the one that ships; a robot's
own integrator is another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dfplanner.data.episodes import Episodes
from dfplanner.types import DFPlannerError


class Dynamics(Protocol):
    """Predicts what will be observed."""

    def predict(self, observation: NDArray, actions: NDArray) -> NDArray[np.float64]:
        """The observations (B, obs) after actions (B, n, act) from observations (B, obs)."""
        ...


@dataclass(frozen=True)
class LinearDynamics:
    """o' = o + [o, a, 1] W: exact for masses, dampers and springs; blind to walls and to what else is not linear.

    weights (obs + act + 1, obs); low and high (act,): the actions' limits, to which they are clipped.
    """

    weights: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

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
        return cls(w, a.min(0), a.max(0))

    def predict(self, observation: NDArray, actions: NDArray) -> NDArray[np.float64]:
        """The observations (B, obs) after actions (B, n, act) from observations (B, obs)."""
        o = np.array(observation, np.float64)
        for a in np.clip(np.swapaxes(actions, 0, 1), self.low, self.high):
            o = o + np.hstack([o, a, np.ones((len(o), 1))]) @ self.weights
        return o
