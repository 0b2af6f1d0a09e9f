"""Plans of the arm that touch nothing: what the planner's candidates are chosen by."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dfplanner.guidance import Objective
from dfplanner_envs.arm.collision import CollisionChecker
from dfplanner_envs.arm.limits import Floats


class Clear(Objective):
    """-Σ_t [the arm is too near to something at t], for states (B, T, 3 + 2 J) and ``pieces`` postures between them.

    It has no gradient: it chooses among a plan's candidates. ``checker``: the distances to keep.
    """

    guides = False

    def __init__(self, checker: CollisionChecker, pieces: int = 4) -> None:
        self.checker, self.pieces = checker, pieces

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        del actions
        q = between(states[..., 3 : 3 + len(self.checker.arm.limits)].double().cpu().numpy(), self.pieces)
        free = self.checker.free(q.reshape(-1, q.shape[-1])).reshape(q.shape[:-1])
        return -torch.from_numpy((~free).sum(1)).to(states)


def between(q: Floats, pieces: int) -> Floats:
    """Postures (B, T, J) with ``pieces`` - 1 more on the line between each two: (B, (T - 1) · pieces + 1, J)."""
    share = (np.arange(pieces) / pieces)[None, None, :, None]
    inner = q[:, :-1, None] * (1 - share) + q[:, 1:, None] * share
    return np.concatenate([inner.reshape(len(q), -1, q.shape[-1]), q[:, -1:]], axis=1)
