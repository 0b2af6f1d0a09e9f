"""Validation while a model is trained: its closed-loop score, on episodes that no benchmark runs."""

from __future__ import annotations

from collections.abc import Callable

from dfplanner.bench.arm import REPLAN_EVERY, SETTINGS
from dfplanner.bench.arm_policy import ArmPlannerPolicy
from dfplanner.bench.policies import PlannerPolicy
from dfplanner.bench.rollout import run_episodes
from dfplanner.bench.tasks import task_of
from dfplanner.checkpoint import Checkpoint
from dfplanner.planner import Planner
from dfplanner.settings import POLICY_SETTINGS, PlannerSettings, policy_settings
from dfplanner_envs.arm.baselines import rollout_arm

EPISODES = 24
FIRST_SEED = 900_000
"""Validation's seeds go on from here. Benchmarks take 1,000,000·seed + i for episode i: theirs differ as long as a
benchmark has no more than 900,000 episodes.
"""


def validator(env_id: str, episodes: int = EPISODES) -> Callable[[Checkpoint], dict[str, float]]:
    """What ``train`` calls to score a checkpoint in ``env_id``: the task's own score, success rate, latched return.

    Raises DFPlannerError at once where the environment cannot be made.
    """
    task_of(env_id).lanes(1)
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)

    def evaluate(checkpoint: Checkpoint) -> dict[str, float]:
        settings, chunks = _settings(checkpoint, env_id)
        policy = PlannerPolicy(Planner(checkpoint, settings), replan_every=int(chunks * checkpoint.spec.chunk))
        result = run_episodes(policy, env_id, seeds)
        return {
            "score": float(result.score.mean()),
            "success_rate": float(result.success.mean()),
            "latched_return": float(result.latched.mean()),
        }

    return evaluate


def arm_validator(episodes: int = EPISODES) -> Callable[[Checkpoint], dict[str, float]]:
    """The same for the arm: the share of goals reached, and of episodes that touched something."""
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)  # benchmarks' begin at a billion

    def evaluate(checkpoint: Checkpoint) -> dict[str, float]:
        policy = ArmPlannerPolicy(Planner(checkpoint, SETTINGS), REPLAN_EVERY)
        result = rollout_arm(policy, seeds).summary()
        return {"score": 100 * result["success"], **{k: result[k] for k in ("collision", "clamped")}}

    return evaluate


def _settings(checkpoint: Checkpoint, env_id: str) -> tuple[PlannerSettings, float]:
    """How it samples, and chunks between plans: few of either; teacher forcing knows only one token after the other."""
    if checkpoint.facts.get("config", {}).get("recipe") == "teacher-forcing":
        return PlannerSettings(horizon=3, scheme="autoregressive", steps=5), 1.0
    settings, chunks = policy_settings(env_id)
    return (settings, chunks) if settings != POLICY_SETTINGS else (PlannerSettings(), 1.0)
