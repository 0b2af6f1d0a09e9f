"""Validation while a model is trained: its closed-loop score, on episodes that no benchmark runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from dfplanner.bench.rollout import run_episodes
from dfplanner.checkpoint import Checkpoint
from dfplanner.controller import RecedingHorizonController
from dfplanner.guidance import ReachGoal
from dfplanner.planner import Planner, PlannerSettings

EPISODES = 24
FIRST_SEED = 900_000
"""Validation's seeds go on from here. Benchmarks take 1,000,000·seed + i for episode i: theirs differ as long as a
benchmark has no more than 900,000 episodes.
"""


def validator(env_id: str, episodes: int = EPISODES) -> Callable[[Checkpoint], dict[str, float]]:
    """What ``train`` calls to score a checkpoint in ``env_id``: mean normalised score, success rate, latched score."""
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)

    def evaluate(checkpoint: Checkpoint) -> dict[str, float]:
        result = run_episodes(ClosedLoop(Planner(checkpoint, _settings(checkpoint))), env_id, seeds)
        return {
            "score": float(result.normalized.mean()),
            "success_rate": float(result.success.mean()),
            "latched_score": float(result.latched_score.mean()),
        }

    return evaluate


def _settings(checkpoint: Checkpoint) -> PlannerSettings:
    """Few evaluations, as the benchmark's rows take them; teacher forcing knows only one token after the other."""
    if checkpoint.facts.get("config", {}).get("recipe") == "teacher-forcing":
        return PlannerSettings(horizon=3, scheme="autoregressive", steps=5)
    return PlannerSettings()


class ClosedLoop:
    """The plan's own actions, the goal as a token in front, a new plan for every chunk."""

    def __init__(self, planner: Planner) -> None:
        self.planner, self.nfe_per_plan, self.planned = planner, 0.0, False
        self._controller: RecedingHorizonController | None = None

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """Begin N episodes; noise comes from ``rng``."""
        generator = torch.Generator(self.planner.device).manual_seed(int(rng.integers(2**31)))
        self._controller = RecedingHorizonController(self.planner, self.planner.spec.chunk, generator=generator)

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        """Actions (N, 2) for observations (N, 4) and goals (N, 2)."""
        if self._controller is None:
            raise RuntimeError("reset comes before act")
        action = self._controller.act(obs, ReachGoal(goal))
        self.planned = self._controller.planned
        return action
