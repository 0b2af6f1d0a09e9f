"""Actions under way: which they are, and how a plan begins with them. NumPy alone, for every runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import Array, DFPlannerError, Plan, TokenSpec

Elapsed = int | NDArray[np.int64]
"""Environment steps since a plan began: one number for the batch, or one each (B,)."""

Stats = Mapping[str, NDArray]
"""A tokenizer's statistics by name."""

FIRM = 50.0
"""Weight of an action under way against one that is not, where they are fitted together. Chosen in closed loop: 10
leaves jumps, from 300 on the fit extrapolates and loops become unstable."""


def check_previous(batch: int, previous: Plan | None, elapsed: Elapsed, committed: int) -> None:
    """Raises DFPlannerError unless a plan can begin ``elapsed`` steps into ``previous``, with that many committed."""
    if committed < 0 or np.shape(elapsed) not in ((), (batch,)) or np.min(elapsed) < 0:
        raise DFPlannerError(
            f"committed {committed} and elapsed {elapsed} were given; expected counts of steps, elapsed one for all or "
            f"one for each of {batch}"
        )
    if previous is None:
        if committed:
            raise DFPlannerError(
                f"{committed} actions are said to be committed, but no previous plan was given; pass previous="
            )
    elif len(previous.tokens) != batch:
        raise DFPlannerError(
            f"the previous plan is for a batch of {len(previous.tokens)}, the history for {batch}; they must agree"
        )
    elif committed:
        committed_actions(previous, elapsed, committed)


def check_foreseen(previous: Plan | None, committed: int) -> Plan:
    """The plan whose committed actions lead to what is foreseen; raises DFPlannerError if there is none."""
    if previous is None or not committed:
        raise DFPlannerError("an observation is foreseen, but no actions are committed that lead to it; give both")
    return previous


def whole_chunks(committed: int, tokens: int, chunk: int) -> int:
    """Whole chunks among the committed actions; raises DFPlannerError if a plan of so many tokens cannot hold them."""
    if committed > tokens * chunk:
        raise DFPlannerError(
            f"{committed} committed actions do not fit into the new plan; commit fewer, or plan further"
        )
    return committed // chunk


def known_actions(plan: Plan) -> int:
    """How many actions of a plan, from its first on, were denoised; the others are zero."""
    return plan.lead + plan.chunk * int(np.cumprod(plan.levels[0, 1:, 1] == 0).sum())


def committed_actions(previous: Plan, elapsed: Elapsed, n: int) -> NDArray[np.float32]:
    """The n actions (B, n, act) of a plan from ``elapsed`` on; raises DFPlannerError if it does not hold so many."""
    last, known = int(np.max(elapsed)), known_actions(previous)
    if last + n > known:
        raise DFPlannerError(
            f"{n} actions from step {last} on are said to be committed, but the previous plan holds {known}; "
            "plan more action_chunks"
        )
    b = len(previous.actions)
    steps = np.broadcast_to(elapsed, b)[:, None] + np.arange(n)
    return previous.actions[np.arange(b)[:, None], steps]


def begin_after(plan: Plan, previous: Plan, elapsed: Elapsed, committed: int, spec: TokenSpec, stats: Stats) -> Plan:
    """A plan from where the committed actions lead, with these in front of it, smoothly joined."""
    kept = committed_actions(previous, elapsed, committed)
    actions = np.concatenate([kept, plan.actions], 1)
    join(actions, previous, elapsed, committed, spec, stats)
    return replace(plan, actions=actions, lead=committed)


def begin_with(
    actions: Array, known: int, previous: Plan, elapsed: Elapsed, committed: int, spec: TokenSpec, stats: Stats
) -> None:
    """Puts the committed actions in front of a plan's (B, n, act), of which ``known`` chunks were denoised, in place.

    A chunk that they fill in part is joined smoothly; whole ones the model has seen.
    """
    actions[:, :committed] = committed_actions(previous, elapsed, committed)
    if committed % spec.chunk:
        join(actions[:, : spec.chunk * known], previous, elapsed, committed, spec, stats)


def join(actions: Array, previous: Plan, elapsed: Elapsed, committed: int, spec: TokenSpec, stats: Stats) -> None:
    """Lets new actions (B, n, act), the first ``committed`` of them the previous plan's, set out from these smoothly.

    A chunk around the join is fitted by the action code (``stats``: the tokenizer's), firmly where it is under way;
    what is not is replaced by the fit. So the join is about as smooth as a chunk is inside. What is under way may
    settle all of the code but two actions' worth, and at most half of the chunk. Nothing is done where nothing is under
    way, or no whole chunk after it.
    """
    before = min(spec.chunk // 2, spec.act_code // spec.act_dim - 2, int(np.min(elapsed)) + committed)
    after = spec.chunk - before
    if before < 1 or committed + spec.chunk > actions.shape[1]:
        return
    past = committed_actions(previous, np.asarray(elapsed) + committed - before, before)
    window = np.concatenate([past, actions[:, committed : committed + after]], 1)
    weight = np.repeat([FIRM, 1.0], [before * spec.act_dim, after * spec.act_dim])
    mean, scale = np.asarray(stats["act_mean"], np.float64), np.asarray(stats["act_scale"], np.float64)
    basis = (np.asarray(stats["act_basis"], np.float64) * scale[:, None]).T  # (chunk · act, act_code)
    fit = basis @ np.linalg.pinv(basis * weight[:, None] ** 0.5) * weight**0.5
    flat = (window.reshape(len(window), -1) - mean) @ fit.T + mean
    actions[:, committed : committed + after] = flat.reshape(window.shape)[:, before:]
