"""``dfplanner.request`` and ``dfplanner.warm`` in numpy: what a planner asks its sampler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfplanner import matrices
from dfplanner.commitment import Elapsed, committed_actions, whole_chunks
from dfplanner.problem import Request, goal_levels, request_matrix, rest, wanted_pace
from dfplanner.runtime.file import OnnxCheckpoint
from dfplanner.runtime.goals import Goal
from dfplanner.runtime.sampler import Noise
from dfplanner.settings import PlannerSettings
from dfplanner.types import Array, Plan


def new_request(
    c: OnnxCheckpoint, seen: Array, goals: Sequence[Goal], tokens: int, trust: int, s: PlannerSettings, noise: Noise
) -> Request[Array]:
    """Noise, with the observations ``seen`` (B, H, obs) and the goal put in, for a plan of ``tokens`` tokens."""
    spec, (b, context), k = c.spec, seen.shape[:2], c.schedule.levels
    matrix = request_matrix(spec, context, tokens, trust, k, s)
    goal, levels = _goal(c, goals, b, s)
    x = noise((b, 1 + matrix.shape[1], spec.width)).copy()
    alpha, sigma = c.schedule.rates(levels[c.tokenizer.part_of])
    x[:, 0] = alpha * goal + sigma * x[:, 0]
    # a doubtful observation is as it would be after noise of its level: it already holds that noise itself
    if trust < k:  # a missing one is pure noise
        x[:, 1 : context + 1, : spec.obs_dim] = c.schedule.alpha[trust] * c.tokenizer.encode_obs(seen)
    matrix = matrices.with_prefix(matrix, levels[None])
    for g in goals:
        if g.how == "last":
            held = c.tokenizer.goal_token(g.for_batch(spec, b, s.candidates))
            x[:, -1, : spec.obs_dim] = held[:, : spec.obs_dim]
            matrix[:, -1, 0] = 0
    return Request(x, matrix, context)


def _goal(c: OnnxCheckpoint, goals: Sequence[Goal], b: int, s: PlannerSettings) -> tuple[Array, NDArray[np.int64]]:
    """The goal token (B, C) and the levels of its two parts, goal and pace."""
    k = c.schedule.levels
    level, goal = k, np.zeros((b, len(c.spec.pos)), np.float32)
    for g in goals:
        if g.how == "token":
            goal, level = g.for_batch(c.spec, b, s.candidates), g.level
    return c.tokenizer.goal_token(goal, wanted_pace(b, s)), goal_levels(level, k, s)


def warm_start(
    r: Request[Array],
    c: OnnxCheckpoint,
    previous: Plan,
    elapsed: Elapsed,
    committed: int,
    s: PlannerSettings,
    noise: Noise,
) -> None:
    """Puts the rest of the previous plan, re-noised, where there was pure noise, and holds committed chunks."""
    d, chunk, first = c.spec.obs_dim, c.spec.chunk, 1 + r.context
    start = r.matrix[0].copy()
    body, fits = rest(c.spec, previous, elapsed, r.x.shape[1] - first)
    if fits and s.warm_level < c.schedule.levels:
        alpha, sigma = c.schedule.alpha[s.warm_level], c.schedule.sigma[s.warm_level]
        body = np.tile(body, (s.candidates, 1, 1))
        loose = np.flatnonzero(start[first : first + fits, 0] > s.warm_level)  # all but a goal at the last token
        r.x[:, first + loose, :d] = (alpha * body + sigma * noise(body.shape))[:, loose]
        start[first + loose, 0] = s.warm_level
    whole = whole_chunks(committed, r.x.shape[1] - first, chunk)
    if whole:
        kept = committed_actions(previous, elapsed, whole * chunk)
        codes = c.tokenizer.encode_actions(kept.reshape(len(kept), whole, chunk, -1))
        r.x[:, first : first + whole, d:] = np.tile(codes, (s.candidates, 1, 1))
        start[first : first + whole, 1] = 0
    r.matrix = matrices.warm(r.matrix, start)
