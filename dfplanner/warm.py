"""What a new plan takes over from the last one: where that was going, and the actions that are already under way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dfplanner import matrices
from dfplanner.checkpoint import Checkpoint
from dfplanner.commitment import Elapsed, committed_actions
from dfplanner.request import Request
from dfplanner.settings import PlannerSettings
from dfplanner.types import DFPlannerError, Plan


def rest(checkpoint: Checkpoint, previous: Plan, elapsed: Elapsed, tokens: int) -> tuple[Tensor, int]:
    """Observations (B, n, obs), normalised, that a plan foresaw for the next ``tokens`` tokens, as far as all go: n."""
    old = torch.from_numpy(previous.tokens).to(checkpoint.tokenizer.obs_mean.device)[..., : checkpoint.spec.obs_dim]
    since = np.maximum(0, np.broadcast_to(elapsed, len(old)) - previous.lead)
    past = torch.from_numpy(since / checkpoint.spec.chunk).to(old.device)
    where = torch.arange(1, tokens + 1, device=old.device) + past[:, None]  # (B, tokens)
    fits = int((where <= old.shape[1] - 1).all(0).sum())
    where = where[:, :fits]
    lo = where.floor().long().clamp(max=max(0, old.shape[1] - 2))
    f = (where - lo).to(old)[..., None]
    rows = torch.arange(len(old), device=old.device)[:, None]
    return (1 - f) * old[rows, lo] + f * old[rows, (lo + 1).clamp(max=old.shape[1] - 1)], fits


def warm_start(
    r: Request,
    checkpoint: Checkpoint,
    previous: Plan,
    elapsed: Elapsed,
    committed: int,
    s: PlannerSettings,
    generator: torch.Generator | None,
) -> None:
    """Puts the rest of the previous plan, re-noised, where there was pure noise, and holds committed chunks."""
    spec, schedule, device = checkpoint.spec, checkpoint.schedule, r.x.device
    start = r.matrix[0].copy()
    first = 1 + r.context
    body, fits = rest(checkpoint, previous, elapsed, r.x.shape[1] - first)
    if fits and s.warm_level < schedule.levels:
        alpha, sigma = schedule.rates(torch.tensor(s.warm_level))
        body = body.repeat(s.candidates, 1, 1)
        noise = torch.randn(body.shape, generator=generator, device=device)
        loose = np.flatnonzero(start[first : first + fits, 0] > s.warm_level)  # all but a goal at the last token
        r.x[:, first + loose, : spec.obs_dim] = (alpha * body + sigma * noise)[:, loose]
        start[first + loose, 0] = s.warm_level
    if committed > (r.x.shape[1] - first) * spec.chunk:
        raise DFPlannerError(
            f"{committed} committed actions do not fit into the new plan; commit fewer, or plan further"
        )
    whole = committed // spec.chunk
    if whole:
        kept = torch.from_numpy(committed_actions(previous, elapsed, whole * spec.chunk)).to(device)
        codes = checkpoint.tokenizer.encode_actions(kept.unflatten(1, (whole, spec.chunk))).repeat(s.candidates, 1, 1)
        r.x[:, first : first + whole, spec.obs_dim :] = codes
        start[first : first + whole, 1] = 0
    r.matrix = matrices.warm(r.matrix, start)
