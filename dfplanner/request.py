"""What a planner asks its sampler: tokens, part noise and part known."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfplanner import matrices
from dfplanner.checkpoint import Checkpoint
from dfplanner.guidance import Objective, ReachGoal, for_batch
from dfplanner.noise import Generators, draw
from dfplanner.problem import Request, goal_levels, request_matrix, wanted_pace
from dfplanner.settings import PlannerSettings


def new_request(
    checkpoint: Checkpoint,
    seen: Tensor,
    objective: Objective | None,
    tokens: int,
    trust: int,
    s: PlannerSettings,
    generator: Generators,
) -> Request[Tensor]:
    """Noise, with the observations ``seen`` (B, H, obs) and the goal put in, for a plan of ``tokens`` tokens."""
    spec, tokenizer, schedule = checkpoint.spec, checkpoint.tokenizer, checkpoint.schedule
    b, context, k, device = seen.shape[0], seen.shape[1], schedule.levels, seen.device
    matrix = request_matrix(spec, context, tokens, trust, k, s)
    goal, levels = _goal(checkpoint, objective, b, s)
    x = draw((b, 1 + matrix.shape[1], spec.width), generator, device)
    known = schedule.rates(torch.from_numpy(levels[tokenizer.part_of]).to(device))
    x[:, 0] = known[0] * goal + known[1] * x[:, 0]
    # a doubtful observation is as it would be after noise of its level: it already holds that noise itself
    if trust < k:  # a missing one is pure noise
        alpha = schedule.rates(torch.tensor(trust))[0].to(device)
        x[:, 1 : context + 1, : spec.obs_dim] = alpha * tokenizer.encode_obs(seen)
    matrix = matrices.with_prefix(matrix, levels[None])
    for _, term in objective.terms if objective else ():
        if isinstance(term, ReachGoal) and term.how == "last":
            goal = for_batch(term.goal, b, s.candidates).to(device)
            x[:, -1, : spec.obs_dim] = tokenizer.goal_token(goal)[:, : spec.obs_dim]
            matrix[:, -1, 0] = 0
    return Request(x, matrix, context)


def _goal(
    checkpoint: Checkpoint, objective: Objective | None, b: int, s: PlannerSettings
) -> tuple[Tensor, NDArray[np.int64]]:
    """The goal token (B, C) and the levels of its two parts, goal and pace."""
    k, device = checkpoint.schedule.levels, checkpoint.tokenizer.obs_mean.device
    level, goal = k, torch.zeros(b, len(checkpoint.spec.pos))
    for _, term in objective.terms if objective else ():
        if isinstance(term, ReachGoal) and term.how == "token":
            goal, level = for_batch(term.goal, b, s.candidates), term.level
    pace = torch.from_numpy(wanted_pace(b, s)).to(device)
    return checkpoint.tokenizer.goal_token(goal.to(device), pace), goal_levels(level, k, s)
