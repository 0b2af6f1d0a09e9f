"""Scheduling matrices: which noise level every token has after every sampling step (Chen et al. 2024, section 3.3).

A matrix is an integer array (M+1, T): row 0 is where sampling starts, row M where it ends. Every free column falls
through one list of levels, K = l_n > ... > l_0 = 0, by at most one entry a row. A sampler takes (M+1, T, P): a column
for every part of every token.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import DFPlannerError

Matrix = NDArray[np.int64]


def level_list(k: int, n: int) -> Matrix:
    """n + 1 levels from 0 to k, evenly spread: (n+1,) rising, l_0 = 0, l_n = k; raises if n is not in 1..k."""
    if not 1 <= n <= k:
        raise DFPlannerError(f"{n} sampling steps were asked of a schedule with {k} levels; expected 1 to {k}")
    return np.round(np.linspace(0, k, n + 1)).astype(np.int64)


def _staggered(place: NDArray[np.int64], scale: float, levels: Matrix) -> Matrix:
    """Columns that start to fall place · scale rows late (rounded down); nobody waits once the one before is clean."""
    n = len(levels) - 1
    late = np.floor(place * min(float(scale), n) + 1e-9).astype(np.int64)
    rows = np.arange(n + int(late.max()) + 1)[:, None]
    return levels[np.clip(n - (rows - late), 0, n)]


def full_sequence(tokens: int, levels: Matrix) -> Matrix:
    """All tokens fall together (Janner et al. 2022)."""
    return _staggered(np.arange(_positive(tokens)), 0, levels)


def autoregressive(tokens: int, levels: Matrix) -> Matrix:
    """A token falls when the one before it is clean."""
    return pyramid(tokens, levels, len(levels) - 1)


def pyramid(tokens: int, levels: Matrix, scale: float) -> Matrix:
    """Causal uncertainty: token t starts to fall t·scale rows late, so that the near future is certain first.

    scale 0 is the full sequence, scale n or more the autoregressive matrix; fractions are allowed (½: two a row).
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise DFPlannerError(
            f"the pyramid's uncertainty scale is {scale}; expected a number ≥ 0 (rows a token waits for the one before)"
        )
    return _staggered(np.arange(_positive(tokens)), scale, levels)


def trapezoid(tokens: int, levels: Matrix, scale: float) -> Matrix:
    """Both ends are known: the middle falls last. Symmetric in time."""
    t = np.arange(_positive(tokens))
    if not (math.isfinite(scale) and scale >= 0):
        raise DFPlannerError(f"the trapezoid's uncertainty scale is {scale}; expected a number ≥ 0")
    return _staggered(np.minimum(t, tokens - 1 - t), scale, levels)


def rolling(tokens: int, levels: Matrix, window: float) -> Matrix:
    """A window of ``window`` tokens, evenly spread from clean to noise, rolls along (Ruhe et al. 2024)."""
    if not (1 <= window <= max(1, tokens) and window == int(window)):
        raise DFPlannerError(
            f"a rolling window of {window} tokens over {tokens}; expected a whole number, 1 to {tokens}"
        )
    return pyramid(tokens, levels, (len(levels) - 1) / window)


def _positive(tokens: int) -> int:
    if tokens < 1:
        raise DFPlannerError(f"a matrix for {tokens} tokens was asked for; expected at least 1")
    return tokens


def observations_then_actions(observations: Matrix, action_levels: Matrix, chunks: range, k: int) -> Matrix:
    """Observations (M+1, T) first, all actions at pure noise k; then the actions of the tokens in ``chunks`` fall.

    This is planning, then inverse dynamics for the chunks about to be executed, by one model. Returns (M', T, 2).
    """
    rows, tokens = observations.shape
    n = len(action_levels) - 1 if len(chunks) else 0
    out = np.full((rows + n, tokens, 2), k, np.int64)
    out[:rows, :, 0] = observations
    out[rows:, :, 0] = observations[-1]
    if len(chunks):
        out[rows:, chunks.start : chunks.stop, 1] = action_levels[::-1][1:, None]
    return out


def together(observations: Matrix, chunks: range, k: int) -> Matrix:
    """The actions of the tokens in ``chunks`` fall together with their observations; the others stay unknown."""
    out = np.repeat(observations[:, :, None], 2, 2)
    out[:, : chunks.start, 1] = k
    out[:, chunks.stop :, 1] = k
    return out


def with_prefix(matrix: Matrix, prefix: Matrix) -> Matrix:
    """Frozen columns (C, P), the same in every row, put before a matrix (M+1, T, P): context, or a goal token."""
    held = np.broadcast_to(prefix, (matrix.shape[0], *prefix.shape))
    return np.concatenate([held, matrix], 1)


def warm(matrix: Matrix, start: Matrix) -> Matrix:
    """Starts from levels (T, P) lower than pure noise: every column is capped by its start, idle rows are dropped."""
    capped = np.minimum(matrix, start[None])
    keep = np.concatenate([(np.diff(capped, axis=0) != 0).any((1, 2)), [True]])
    return capped[keep]


SCHEMES = {
    "full-sequence": lambda tokens, levels, scale: full_sequence(tokens, levels),
    "autoregressive": lambda tokens, levels, scale: autoregressive(tokens, levels),
    "pyramid": pyramid,
    "trapezoid": trapezoid,
    "rolling": rolling,
}
"""The schemes by name: (tokens, level list, scale) -> matrix."""


def scheme(name: str, tokens: int, levels: Matrix, scale: float) -> Matrix:
    """A scheme by name; an unknown one lists the known ones."""
    if name not in SCHEMES:
        raise DFPlannerError(f"unknown scheduling scheme {name!r}; known: {', '.join(SCHEMES)}")
    return SCHEMES[name](tokens, levels, scale)
