"""What a planner asks its sampler: tokens, part noise and part known, and the matrix that says how much is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfplanner import matrices
from dfplanner.checkpoint import Checkpoint
from dfplanner.guidance import Objective, ReachGoal, for_batch
from dfplanner.matrices import Matrix
from dfplanner.settings import PlannerSettings
from dfplanner.types import Array, DFPlannerError


@dataclass
class Request:
    """A problem on its way to the sampler: tokens (B, 1 + H + F, C) at the levels of the matrix's first row."""

    x: Tensor
    matrix: Matrix
    context: int
    """Observations known, H; the first future token is number 1 + H, behind the goal token."""

    @property
    def observation_rows(self) -> int:
        """Steps before the actions alone fall: until then plans can be compared."""
        falls = (np.diff(self.matrix[..., 0], axis=0) != 0).any(1)
        return int(np.flatnonzero(falls)[-1]) + 1 if falls.any() else 0


def read_history(checkpoint: Checkpoint, history: Array | NDArray[np.float64]) -> Tensor:
    """Observations (B, obs) or (B, H, obs) as (B, H, obs) on the model's device; raises on a wrong shape or a NaN."""
    h = np.asarray(history, np.float32)
    h = h[:, None] if h.ndim == 2 else h
    d = checkpoint.spec.obs_dim
    if h.ndim != 3 or h.shape[2] != d or h.shape[0] < 1 or h.shape[1] < 1:
        raise DFPlannerError(
            f"history has the shape {np.shape(history)}; expected (batch, {d}) or (batch, observations, {d})"
        )
    if not np.isfinite(h).all():
        raise DFPlannerError(
            "history holds a NaN or an infinity; give level `trust` to a doubtful sensor instead of a broken number"
        )
    return torch.from_numpy(h).to(checkpoint.tokenizer.obs_mean.device)


def new_request(
    checkpoint: Checkpoint,
    seen: Tensor,
    objective: Objective | None,
    tokens: int,
    trust: int,
    s: PlannerSettings,
    generator: torch.Generator | None,
) -> Request:
    """Noise, with the observations ``seen`` (B, H, obs) and the goal put in, for a plan of ``tokens`` tokens."""
    spec, tokenizer, schedule = checkpoint.spec, checkpoint.tokenizer, checkpoint.schedule
    b, context, k, device = seen.shape[0], seen.shape[1], schedule.levels, seen.device
    future = min(tokens - 1, spec.horizon - context)
    if future < 1:
        raise DFPlannerError(
            f"{context} observations of history leave no room in a model of {spec.horizon} tokens; "
            f"give at most {spec.horizon - 1}"
        )
    matrix = _matrix(context, future, trust, k, s)
    goal, goal_levels = _goal(checkpoint, objective, b, s)
    x = torch.randn((b, 1 + context + future, spec.width), generator=generator, device=device)
    known = schedule.rates(torch.tensor(goal_levels, device=device)[torch.from_numpy(tokenizer.part_of).to(device)])
    x[:, 0] = known[0] * goal + known[1] * x[:, 0]
    # a doubtful observation is as it would be after noise of its level: it already holds that noise itself
    if trust < k:  # a missing one is pure noise
        alpha = schedule.rates(torch.tensor(trust))[0].to(device)
        x[:, 1 : context + 1, : spec.obs_dim] = alpha * tokenizer.encode_obs(seen)
    matrix = matrices.with_prefix(matrix, np.array([goal_levels]))
    for _, term in objective.terms if objective else ():
        if isinstance(term, ReachGoal) and term.how == "last":
            goal = for_batch(term.goal, b, s.candidates).to(device)
            x[:, -1, : spec.obs_dim] = tokenizer.goal_token(goal)[:, : spec.obs_dim]
            matrix[:, -1, 0] = 0
    return Request(x, matrix, context)


def _matrix(context: int, future: int, trust: int, k: int, s: PlannerSettings) -> Matrix:
    """The settings' scheme for ``future`` tokens behind ``context`` known ones, for both parts."""
    levels = matrices.level_list(k, s.steps)
    scale = min(s.scale, future) if s.scheme == "rolling" else s.scale
    observations = matrices.scheme(s.scheme, future, levels, scale)
    past = np.repeat(np.minimum(observations[:, :1], trust), context, 1)
    observations = np.concatenate([past, observations], 1)
    chunks = range(context, context + min(s.action_chunks, future))
    if s.action_steps:
        return matrices.observations_then_actions(observations, matrices.level_list(k, s.action_steps), chunks, k)
    return matrices.together(observations, chunks, k)


def _goal(checkpoint: Checkpoint, objective: Objective | None, b: int, s: PlannerSettings) -> tuple[Tensor, list[int]]:
    """The goal token (B, C) and the levels of its two parts, goal and pace."""
    k, device = checkpoint.schedule.levels, checkpoint.tokenizer.obs_mean.device
    level, goal = k, torch.zeros(b, len(checkpoint.spec.pos))
    for _, term in objective.terms if objective else ():
        if isinstance(term, ReachGoal) and term.how == "token":
            goal, level = for_batch(term.goal, b, s.candidates), term.level
    if not 0 <= level <= k:
        raise DFPlannerError(f"the goal's level is {level}; expected a noise level, 0 (exact) to {k} (unknown)")
    pace = torch.zeros(b, 2, device=device)
    pace[:, 0] = s.pace or 0.0
    stay = b // s.candidates * (s.candidates // 4)
    if stay:  # the last quarter of the candidates for each problem stay where they are, the others go
        pace[-stay:] = torch.tensor([0.0, 1.0], device=device)
    return checkpoint.tokenizer.goal_token(goal.to(device), pace), [level, k if s.pace is None else 0]
