"""``dfplanner.request`` and ``dfplanner.warm`` in numpy: what a planner asks its sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfplanner import matrices
from dfplanner.commitment import Elapsed, committed_actions
from dfplanner.matrices import Matrix
from dfplanner.runtime.file import OnnxCheckpoint
from dfplanner.runtime.goals import Goal
from dfplanner.runtime.sampler import Noise
from dfplanner.settings import PlannerSettings
from dfplanner.types import Array, DFPlannerError, Plan


@dataclass
class Request:
    """A problem on its way to the sampler: tokens (B, 1 + H + F, C) at the levels of the matrix's first row."""

    x: Array
    matrix: Matrix
    context: int
    """Observations known, H; the first future token is number 1 + H, behind the goal token."""

    @property
    def observation_rows(self) -> int:
        """Steps before the actions alone fall: until then plans can be compared."""
        falls = (np.diff(self.matrix[..., 0], axis=0) != 0).any(1)
        return int(np.flatnonzero(falls)[-1]) + 1 if falls.any() else 0


def read_history(c: OnnxCheckpoint, history: Array | NDArray[np.float64]) -> Array:
    """Observations (B, obs) or (B, H, obs) as (B, H, obs); raises on a wrong shape or a NaN."""
    h, d = np.asarray(history, np.float32), c.spec.obs_dim
    h = h[:, None] if h.ndim == 2 else h
    if h.ndim != 3 or h.shape[2] != d or h.shape[0] < 1 or h.shape[1] < 1:
        raise DFPlannerError(
            f"history has the shape {np.shape(history)}; expected (batch, {d}) or (batch, observations, {d})"
        )
    if not np.isfinite(h).all():
        raise DFPlannerError(
            "history holds a NaN or an infinity; give level `trust` to a doubtful sensor instead of a broken number"
        )
    return h


def new_request(
    c: OnnxCheckpoint, seen: Array, goals: Sequence[Goal], tokens: int, trust: int, s: PlannerSettings, noise: Noise
) -> Request:
    """Noise, with the observations ``seen`` (B, H, obs) and the goal put in, for a plan of ``tokens`` tokens."""
    spec, (b, context), k = c.spec, seen.shape[:2], c.schedule.levels
    future = min(tokens - 1, spec.horizon - context)
    if future < 1:
        raise DFPlannerError(
            f"{context} observations of history leave no room in a model of {spec.horizon} tokens; "
            f"give at most {spec.horizon - 1}"
        )
    matrix = _matrix(context, future, trust, k, s)
    goal, goal_levels = _goal(c, goals, b, s)
    x = noise((b, 1 + context + future, spec.width)).copy()
    alpha, sigma = c.schedule.rates(goal_levels[c.tokenizer.part_of])
    x[:, 0] = alpha * goal + sigma * x[:, 0]
    # a doubtful observation is as it would be after noise of its level: it already holds that noise itself
    if trust < k:  # a missing one is pure noise
        x[:, 1 : context + 1, : spec.obs_dim] = c.schedule.alpha[trust] * c.tokenizer.encode_obs(seen)
    matrix = matrices.with_prefix(matrix, goal_levels[None])
    for g in goals:
        if g.how == "last":
            held = c.tokenizer.goal_token(g.for_batch(spec, b, s.candidates))
            x[:, -1, : spec.obs_dim] = held[:, : spec.obs_dim]
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


def _goal(c: OnnxCheckpoint, goals: Sequence[Goal], b: int, s: PlannerSettings) -> tuple[Array, NDArray[np.int64]]:
    """The goal token (B, C) and the levels of its two parts, goal and pace."""
    k = c.schedule.levels
    level, goal = k, np.zeros((b, len(c.spec.pos)), np.float32)
    for g in goals:
        if g.how == "token":
            goal, level = g.for_batch(c.spec, b, s.candidates), g.level
    if not 0 <= level <= k:
        raise DFPlannerError(f"the goal's level is {level}; expected a noise level, 0 (exact) to {k} (unknown)")
    pace = np.zeros((b, 2), np.float32)
    pace[:, 0] = s.pace or 0.0
    stay = b // s.candidates * (s.candidates // 4)
    if stay:  # the last quarter of the candidates for each problem stay where they are, the others go
        pace[-stay:] = (0.0, 1.0)
    return c.tokenizer.goal_token(goal, pace), np.array([level, k if s.pace is None else 0])


def rest(c: OnnxCheckpoint, previous: Plan, elapsed: Elapsed, tokens: int) -> tuple[Array, int]:
    """Observations (B, n, obs), normalised, that a plan foresaw for the next ``tokens`` tokens, as far as all go: n."""
    old = previous.tokens[..., : c.spec.obs_dim]
    since = np.maximum(0, np.broadcast_to(elapsed, len(old)) - previous.lead)
    where = np.arange(1, tokens + 1) + (since / c.spec.chunk)[:, None]
    fits = int((where <= old.shape[1] - 1).all(0).sum())
    where = where[:, :fits]
    lo = np.minimum(np.floor(where).astype(np.int64), max(0, old.shape[1] - 2))
    f, rows = (where - lo).astype(np.float32)[..., None], np.arange(len(old))[:, None]
    body = (1 - f) * old[rows, lo] + f * old[rows, np.minimum(lo + 1, old.shape[1] - 1)]
    return body.astype(np.float32), fits


def warm_start(
    r: Request,
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
    body, fits = rest(c, previous, elapsed, r.x.shape[1] - first)
    if fits and s.warm_level < c.schedule.levels:
        alpha, sigma = c.schedule.alpha[s.warm_level], c.schedule.sigma[s.warm_level]
        body = np.tile(body, (s.candidates, 1, 1))
        loose = np.flatnonzero(start[first : first + fits, 0] > s.warm_level)  # all but a goal at the last token
        r.x[:, first + loose, :d] = (alpha * body + sigma * noise(body.shape))[:, loose]
        start[first + loose, 0] = s.warm_level
    if committed > (r.x.shape[1] - first) * chunk:
        raise DFPlannerError(
            f"{committed} committed actions do not fit into the new plan; commit fewer, or plan further"
        )
    whole = committed // chunk
    if whole:
        kept = committed_actions(previous, elapsed, whole * chunk)
        codes = c.tokenizer.encode_actions(kept.reshape(len(kept), whole, chunk, -1))
        r.x[:, first : first + whole, d:] = np.tile(codes, (s.candidates, 1, 1))
        start[first : first + whole, 1] = 0
    r.matrix = matrices.warm(r.matrix, start)
