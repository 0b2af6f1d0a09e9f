"""Goals without gradients: what the ONNX runtime understands of an objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfplanner.settings import PlannerSettings
from dfplanner.types import Array, DFPlannerError, TokenSpec


@dataclass(frozen=True, eq=False)
class Goal:
    """``dfplanner.guidance.ReachGoal`` without torch: a point (g,), or one each (B, g).

    ``how``: ``token``, a goal token in front at noise level ``level``; ``last``, the last token held there.
    """

    goal: Any
    how: str = "token"
    level: int = 0
    pos: Sequence[int] | None = None
    """Indices of the observation that the score compares; None: the model's."""
    soft: float = 0.05
    weight: float = 1.0

    def points(self, spec: TokenSpec) -> Array:
        """The points (1 or B, g); raises DFPlannerError on another shape or a NaN."""
        p, dims = np.asarray(self.goal, np.float32), len(spec.pos)
        p = p[None] if p.ndim == 1 else p
        if p.ndim != 2 or p.shape[1] != dims or not len(p):
            raise DFPlannerError(f"the goal has the shape {np.shape(self.goal)}; expected ({dims},) or (batch, {dims})")
        if not np.isfinite(p).all():
            raise DFPlannerError(f"the goal holds a NaN or an infinity: {p.tolist()[:3]}; give finite numbers")
        return p

    def for_batch(self, spec: TokenSpec, b: int, candidates: int) -> Array:
        """The points for B problems with several candidates each, b = candidates · B in all, as (b, g)."""
        p = self.points(spec)
        if len(p) not in (1, b // candidates):
            raise DFPlannerError(
                f"{len(p)} goals were given for a batch of {b // candidates}; expected one for all, or one each"
            )
        return np.tile(p, (b // len(p), 1))

    def score(self, spec: TokenSpec, states: Array) -> Array:
        """-Σ_t √(d_t² + soft) (n·B,) of states (n·B, T, obs), as ReachGoal's."""
        p = self.points(spec)
        away = states[..., list(self.pos or spec.pos)] - np.tile(p, (len(states) // len(p), 1))[:, None]
        return -np.sqrt((away**2).sum(-1) + np.float32(self.soft)).sum(1) * np.float32(self.weight)


def goals_of(objective: Any, s: PlannerSettings) -> tuple[Goal, ...]:
    """An objective's goals: of None, an array, anything like ReachGoal, or a sum of those.

    Raises DFPlannerError on what needs a gradient.
    """
    if objective is None:
        return ()
    if isinstance(objective, np.ndarray | list | tuple):
        return (Goal(objective),)
    found = []
    for weight, term in getattr(objective, "terms", ((1.0, objective),)):
        how = getattr(term, "how", "token")
        if not hasattr(term, "goal") or (how == "guidance" and s.guidance != 0):
            name = type(term).__name__ + (f" by {how}" if hasattr(term, "goal") else "")
            raise DFPlannerError(
                f"the objective {name} needs a gradient, which the ONNX runtime does not have; tell a goal by a token, "
                "or plan with torch"
            )
        if how not in ("token", "last", "guidance"):
            raise DFPlannerError(f"a goal can be told by 'token' or 'last', not by {how!r}")
        pos, soft = getattr(term, "pos", None), getattr(term, "soft", 0.05)
        found.append(Goal(term.goal, how, getattr(term, "level", 0), pos, soft, weight * getattr(term, "weight", 1.0)))
    return tuple(found)
