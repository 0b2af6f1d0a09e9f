"""Model predictive path integral control (MPPI) on the true MuJoCo dynamics: a perfect model, no planner.

Source: Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning". The cost is
the plain Euclidean distance to the goal minus D4RL's sparse reward, as in the rows that papers print: it
knows no walls, so that looking ahead ``horizon`` steps it runs against those between it and the goal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfplanner_envs.mazes import maze_of, reward
from dfplanner_envs.vector import VectorMaze2D


@dataclass(frozen=True)
class MPPIConfig:
    """samples: action sequences tried; horizon: environment steps looked ahead; every: environment steps
    between plans; hold: environment steps a drawn action lasts; noise: its standard deviation;
    temperature: metres·steps of cost that divide a sequence's weight by e. Two to four times as many
    samples or plans score the same: the walls decide.
    """

    samples: int = 64
    horizon: int = 32
    every: int = 16
    hold: int = 8
    noise: float = 0.7
    temperature: float = 1.0


class MPPI:
    """MPPI for N episodes in lock step, warm-started from the last plan; ``planned`` is true on steps that
    replan.
    """

    nfe_per_plan = 0.0

    def __init__(self, env_id: str, config: MPPIConfig | None = None, nthread: int = 0) -> None:
        self.maze, _ = maze_of(env_id)
        self.config = config or MPPIConfig()
        self.nthread = nthread
        self.planned = False

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """Begin N episodes (observations (N, 4), goals (N, 2)); ``rng`` draws the sequences."""
        c = self.config
        self._rng, self._t = rng, 0
        self._model = VectorMaze2D(self.maze, len(obs) * c.samples, autoreset=False, nthread=self.nthread)
        self._nominal = np.zeros((len(obs), c.horizon, 2))

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        """(N, 2) for observations (N, 4) and goals (N, 2)."""
        i = self._t % self.config.every
        self.planned = i == 0
        if self.planned:
            if self._t:
                self._shift()
            self._improve(obs, goal)
        self._t += 1
        return self._nominal[:, i].copy()

    def _shift(self) -> None:
        """Move the plan on by the steps that were executed; its end stays."""
        k = self.config.every
        self._nominal = np.concatenate((self._nominal[:, k:], np.repeat(self._nominal[:, -1:], k, axis=1)), axis=1)

    def _improve(self, obs: NDArray, goal: NDArray) -> None:
        """One MPPI update of the plans (N, horizon, 2) from ``obs`` (N, 4)."""
        c, n = self.config, len(obs)
        noise = self._rng.normal(0.0, c.noise, (n, c.samples, -(-c.horizon // c.hold), 2))
        noise = np.repeat(noise, c.hold, axis=2)[:, :, : c.horizon]
        noise[:, 0] = 0.0  # the plan as it is competes too
        tried = np.clip(self._nominal[:, None] + noise, -1.0, 1.0)
        cost = self._cost(obs, goal, tried)
        weight = np.exp(-(cost - cost.min(axis=1, keepdims=True)) / c.temperature)
        weight /= weight.sum(axis=1, keepdims=True)
        self._nominal = np.einsum("ns,nstc->ntc", weight, tried)

    def _cost(self, obs: NDArray, goal: NDArray, tried: NDArray) -> NDArray:
        """(N, S) distance to the goal minus reward, summed over the steps of action sequences ``tried``
        (N, S, H, 2).
        """
        n, s, h, _ = tried.shape
        state = np.repeat(np.asarray(obs, np.float64), s, axis=0)
        target = np.repeat(np.asarray(goal, np.float64), s, axis=0)
        actions = tried.reshape(n * s, h, 2)
        cost = np.zeros(n * s)
        self._model.set_state(state[:, :2], state[:, 2:])
        for t in range(h):
            xy = self._model.step_physics(actions[:, t])[:, :2]
            cost += np.linalg.norm(xy - target, axis=1) - reward(xy, target)
        return cost.reshape(n, s)
