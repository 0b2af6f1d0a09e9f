"""What is asked of a planner, in numbers: checked, and laid out as noise levels. NumPy alone, for every runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dfplanner import matrices
from dfplanner.commitment import Elapsed
from dfplanner.matrices import Matrix
from dfplanner.settings import PlannerSettings
from dfplanner.types import Array, DFPlannerError, Plan, TokenSpec

X = TypeVar("X")


@dataclass
class Request(Generic[X]):
    """A problem on its way to the sampler: tokens (B, 1 + H + F, C) at the levels of the matrix's first row."""

    x: X
    matrix: Matrix
    context: int
    """Observations known, H; the first future token is number 1 + H, behind the goal token."""

    @property
    def observation_rows(self) -> int:
        """Steps before the actions alone fall: until then plans can be compared."""
        falls = (np.diff(self.matrix[..., 0], axis=0) != 0).any(1)
        return int(np.flatnonzero(falls)[-1]) + 1 if falls.any() else 0


def checked_horizon(spec: TokenSpec, s: PlannerSettings, trust: int, levels: int) -> int:
    """Tokens of the plan; raises DFPlannerError on too few, or if ``trust`` is none of the ``levels``."""
    horizon = spec.horizon if s.horizon is None else s.horizon
    if horizon < 2:
        raise DFPlannerError(f"a plan needs a horizon of at least 2 tokens, got {horizon}")
    if not 0 <= trust <= levels:
        raise DFPlannerError(f"trust is {trust}; expected a level of 0 (exact) to {levels}")
    return horizon


def checked_history(spec: TokenSpec, history: Array | NDArray[np.float64]) -> Array:
    """Observations (B, obs) or (B, H, obs) as (B, H, obs); raises DFPlannerError on a wrong shape or a NaN."""
    h, d = np.asarray(history, np.float32), spec.obs_dim
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


def request_matrix(spec: TokenSpec, context: int, tokens: int, trust: int, k: int, s: PlannerSettings) -> Matrix:
    """The settings' scheme (M, H + F, 2) for a plan of ``tokens`` tokens behind ``context`` known ones, both parts.

    Raises DFPlannerError where the history leaves no room.
    """
    future = min(tokens - 1, spec.horizon - context)
    if future < 1:
        raise DFPlannerError(
            f"{context} observations of history leave no room in a model of {spec.horizon} tokens; "
            f"give at most {spec.horizon - 1}"
        )
    scale = min(s.scale, future) if s.scheme == "rolling" else s.scale
    observations = matrices.scheme(s.scheme, future, matrices.level_list(k, s.steps), scale)
    past = np.repeat(np.minimum(observations[:, :1], trust), context, 1)
    observations = np.concatenate([past, observations], 1)
    chunks = range(context, context + min(s.action_chunks, future))
    if s.action_steps:
        return matrices.observations_then_actions(observations, matrices.level_list(k, s.action_steps), chunks, k)
    return matrices.together(observations, chunks, k)


def goal_levels(level: int, k: int, s: PlannerSettings) -> NDArray[np.int64]:
    """The levels (2,) of the goal token's parts, goal and pace; raises DFPlannerError if the goal's is none."""
    if not 0 <= level <= k:
        raise DFPlannerError(f"the goal's level is {level}; expected a noise level, 0 (exact) to {k} (unknown)")
    return np.array([level, k if s.pace is None else 0])


def wanted_pace(b: int, s: PlannerSettings) -> Array:
    """The pace (B, 2) told with each goal: the settings', but the last quarter of a problem's candidates stay."""
    pace = np.zeros((b, 2), np.float32)
    pace[:, 0] = s.pace or 0.0
    stay = b // s.candidates * (s.candidates // 4)
    if stay:
        pace[-stay:] = (0.0, 1.0)
    return pace


def rest(spec: TokenSpec, previous: Plan, elapsed: Elapsed, tokens: int) -> tuple[Array, int]:
    """Observations (B, n, obs), normalised, that a plan foresaw for the next ``tokens`` tokens, as far as all go: n."""
    old = previous.tokens[..., : spec.obs_dim]
    since = np.maximum(0, np.broadcast_to(elapsed, len(old)) - previous.lead)
    where = np.arange(1, tokens + 1) + (since / spec.chunk)[:, None]
    fits = int((where <= old.shape[1] - 1).all(0).sum())
    where = where[:, :fits]
    lo = np.minimum(np.floor(where).astype(np.int64), max(0, old.shape[1] - 2))
    f, rows = (where - lo).astype(np.float32)[..., None], np.arange(len(old))[:, None]
    body = (1 - f) * old[rows, lo] + f * old[rows, np.minimum(lo + 1, old.shape[1] - 1)]
    return body.astype(np.float32), fits
