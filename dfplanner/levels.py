"""Which noise level every part of every token gets in training: this is all that tells the methods apart."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import DFPlannerError

Recipe = Literal["diffusion-forcing", "independent", "teacher-forcing", "full-sequence"]
Levels = NDArray[np.int64]


def observation_levels(
    n: int, tokens: int, k: int, recipe: Recipe, rng: np.random.Generator
) -> tuple[Levels, NDArray[np.bool_]]:
    """Levels (n, tokens) in 0..k of the observations, and which of them count in the loss.

    - ``diffusion-forcing``: 40 % independent, 30 % sorted along time (a certain near future), 30 % shared; the first
      clean in 85 %. ``independent`` is the paper's own: every token for itself.
    - ``full-sequence``: shared (Janner et al. 2022), the first clean in 85 %.
    - ``teacher-forcing``: the past clean, the next token at any level, what follows pure noise and not in the loss.
    """
    own = rng.integers(1, k + 1, (n, tokens))
    loss = np.ones((n, tokens), bool)
    if recipe == "independent":
        return own, loss
    shared = np.repeat(own[:, :1], tokens, 1)
    if recipe == "teacher-forcing":
        at = rng.integers(1, tokens, n)[:, None]
        t = np.arange(tokens)
        return np.where(t < at, 0, np.where(t == at, own, k)), t == at
    if recipe == "full-sequence":
        levels = shared
    elif recipe == "diffusion-forcing":
        u = rng.random((n, 1))
        levels = np.where(u < 0.4, own, np.where(u < 0.7, np.sort(own, 1), shared))
    else:
        raise DFPlannerError(
            f"unknown training recipe {recipe!r}; known: diffusion-forcing, independent, teacher-forcing, full-sequence"
        )
    levels[rng.random(n) < 0.85, 0] = 0
    return levels, loss


def training_levels(
    n: int,
    tokens: int,
    k: int,
    recipe: Recipe,
    rng: np.random.Generator,
    goal_dropout: float = 0.3,
    pace_known: NDArray[np.bool_] | None = None,
    led: Levels | None = None,
) -> tuple[Levels, NDArray[np.bool_]]:
    """Levels (n, 1 + tokens, 2) of the parts (observation, actions) of a goal token and the tokens, and the loss mask.

    Actions: 35 % pure noise (the plan of observations alone); 30 % at any level under clean observations (inverse
    dynamics); 20 % at the observations' levels; 15 % the first few known, the others pure noise (a forward model:
    committed actions). The goal is clean, or pure noise in ``goal_dropout`` of the cases; the pace beside it,
    where it is known, is clean in 80 % of those without a goal and in 30 % of the others. No loss on what is clean, on
    actions that are pure noise, on the goal token, nor on the actions before the first observation. ``led`` (n,): how
    many tokens lead to the goal; those after them are pure noise, without loss.
    """
    obs, counted = observation_levels(n, tokens, k, recipe, rng)
    u = rng.random((n, 1))
    inverse = (u >= 0.35) & (u < 0.65)
    forward = u >= 0.85
    committed = np.arange(tokens) <= rng.integers(1, max(2, tokens // 2), (n, 1))
    act = np.where(u < 0.35, k, np.where(inverse, rng.integers(1, k + 1, (n, tokens)), obs))
    act = np.where(forward, np.where(committed, 0, k), act)
    obs = np.where(inverse, 0, obs)
    levels = np.empty((n, 1 + tokens, 2), np.int64)
    levels[:, 1:, 0], levels[:, 1:, 1] = obs, act
    dropped = rng.random(n) < goal_dropout
    known = np.zeros(n, bool) if pace_known is None else pace_known
    levels[:, 0, 0] = np.where(dropped, k, 0)
    levels[:, 0, 1] = np.where(known & (rng.random(n) < np.where(dropped, 0.8, 0.3)), 0, k)
    levels[:, 1, 1] = k
    loss = levels > 0
    loss[:, 0] = False
    loss[:, 1:, 0] &= counted
    loss[:, 1:, 1] &= (levels[:, 1:, 1] < k) & (counted | inverse)
    if led is not None:
        astray = np.arange(tokens) >= led[:, None]
        levels[:, 1:][astray], loss[:, 1:][astray] = k, False
    return levels, loss
