"""What a new plan takes over from the last one: where that was going, and the actions that are already under way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dfplanner import matrices
from dfplanner.checkpoint import Checkpoint
from dfplanner.commitment import Elapsed, committed_actions, whole_chunks
from dfplanner.noise import Generators, draw
from dfplanner.problem import Request, rest
from dfplanner.settings import PlannerSettings
from dfplanner.types import Plan


def warm_start(
    r: Request[Tensor],
    checkpoint: Checkpoint,
    previous: Plan,
    elapsed: Elapsed,
    committed: int,
    s: PlannerSettings,
    generator: Generators,
) -> None:
    """Puts the rest of the previous plan, re-noised, where there was pure noise, and holds committed chunks."""
    spec, schedule, device = checkpoint.spec, checkpoint.schedule, r.x.device
    start = r.matrix[0].copy()
    first = 1 + r.context
    body, fits = rest(spec, previous, elapsed, r.x.shape[1] - first)
    if fits and s.warm_level < schedule.levels:
        alpha, sigma = schedule.rates(torch.tensor(s.warm_level))
        seen = torch.from_numpy(body).to(device).repeat(s.candidates, 1, 1)
        noise = draw(seen.shape, generator, device)
        loose = np.flatnonzero(start[first : first + fits, 0] > s.warm_level)  # all but a goal at the last token
        r.x[:, first + loose, : spec.obs_dim] = (alpha * seen + sigma * noise)[:, loose]
        start[first + loose, 0] = s.warm_level
    whole = whole_chunks(committed, r.x.shape[1] - first, spec.chunk)
    if whole:
        kept = torch.from_numpy(committed_actions(previous, elapsed, whole * spec.chunk)).to(device)
        codes = checkpoint.tokenizer.encode_actions(kept.unflatten(1, (whole, spec.chunk))).repeat(s.candidates, 1, 1)
        r.x[:, first : first + whole, spec.obs_dim :] = codes
        start[first : first + whole, 1] = 0
    r.matrix = matrices.warm(r.matrix, start)
