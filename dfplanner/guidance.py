"""Objectives: differentiable scores of a planned future, higher is better, and they add.

An objective sees states (B, T, obs) and actions (B, T-1, chunk, act) in the environment's units and gives (B,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dfplanner.types import Array, DFPlannerError

How = Literal["token", "guidance", "last"]


class Objective(ABC):
    """A score to be maximised. ``a + b`` adds, ``2 * a`` weighs."""

    guides: bool = True
    """Whether plans are pulled by its gradient; False: it chooses among candidates, or is told in another way."""

    @abstractmethod
    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """The score (B,) of states (B, T, obs) and actions (B, T-1, chunk, act)."""

    @property
    def terms(self) -> tuple[tuple[float, Objective], ...]:
        """The weighted parts this objective is the sum of."""
        return ((1.0, self),)

    def __add__(self, other: Objective) -> Objective:
        return Sum(self.terms + other.terms)

    def __mul__(self, weight: float) -> Objective:
        return Sum(tuple((weight * w, t) for w, t in self.terms))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of objectives."""

    parts: tuple[tuple[float, Objective], ...]

    @property
    def terms(self) -> tuple[tuple[float, Objective], ...]:
        return self.parts

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        return torch.stack([w * t(states, actions) for w, t in self.parts]).sum(0)


def points(value: object, dims: int, what: str) -> Tensor:
    """A point (dims,) or a batch of them as a float tensor (B, dims); raises on another shape or a NaN."""
    p = torch.as_tensor(np.asarray(value, np.float32))
    p = p[None] if p.ndim == 1 else p
    if p.ndim != 2 or p.shape[1] != dims or not len(p):
        raise DFPlannerError(f"{what} has the shape {tuple(p.shape)}; expected ({dims},) or (batch, {dims})")
    if not torch.isfinite(p).all():
        raise DFPlannerError(f"{what} holds a NaN or an infinity: {p.tolist()[:3]}; give finite numbers")
    return p


def for_batch(points: Tensor, b: int, candidates: int) -> Tensor:
    """Points (1 or B, g) for B problems with several candidates each, b = candidates · B in all, as (b, g)."""
    if points.shape[0] not in (1, b // candidates):
        given = f"{points.shape[0]} goals were given for a batch of {b // candidates}"
        raise DFPlannerError(f"{given}; expected one for all, or one each")
    return points.repeat(b // points.shape[0], 1)


def _for_each(own: Tensor, states: Tensor) -> Tensor:
    """A value each of b problems (b, ...) for the B states, several futures of a problem sharing it."""
    times, rest = divmod(states.shape[0], own.shape[0])
    if rest or not times:
        raise DFPlannerError(
            f"{own.shape[0]} points or maps were given to an objective for a batch of {states.shape[0]}; expected one "
            "for all, or one each"
        )
    return own.to(states).repeat(times, *(1 for _ in own.shape[1:]))


def _distance2(states: Tensor, pos: Sequence[int], point: Tensor) -> Tensor:
    """Squared distances (B, T) to points (b, d), b dividing B: several futures may share a point."""
    return (states[..., list(pos)] - _for_each(point, states)[:, None]).square().sum(-1)


class ReachGoal(Objective):
    """-Σ_t √(d_t² + 0.05): every moment away from the goal costs, so early arrival counts.

    ``how`` the plan is told: ``token``, a goal token in front of it, at noise level ``level`` (needs no gradient);
    ``guidance``, by the gradient of this score alone, the goal token being pure noise (the paper's way); ``last``, the
    last token held at the goal (Diffuser's inpainting).
    """

    def __init__(
        self,
        goal: object,
        how: How = "token",
        *,
        pos: Sequence[int] = (0, 1),
        level: int = 0,
        soft: float = 0.05,
    ) -> None:
        if how not in ("token", "guidance", "last"):
            raise DFPlannerError(f"a goal can be told by 'token', 'guidance' or 'last', not by {how!r}")
        self.goal, self.how, self.pos, self.level, self.soft = (
            points(goal, len(pos), "the goal"),
            how,
            tuple(pos),
            level,
            soft,
        )
        self.guides = how == "guidance"

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        return -(_distance2(states, self.pos, self.goal) + self.soft).sqrt().sum(1)


class StayNear(Objective):
    """-Σ_t max(0, d_t - radius)²: no pull inside the radius."""

    def __init__(self, point: object, radius: float = 0.0, *, pos: Sequence[int] = (0, 1)) -> None:
        if not radius >= 0:
            raise DFPlannerError(f"the radius to stay within is {radius}; expected a number ≥ 0")
        self.point, self.radius, self.pos = (
            points(point, len(pos), "the point to stay near"),
            radius,
            tuple(pos),
        )

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        d = (_distance2(states, self.pos, self.point) + 1e-9).sqrt()
        return -(d - self.radius).clamp(min=0).square().sum(1)


class Avoid(Objective):
    """-Σ_t max(0, radius - d_t)²: pushes out of a disc (a ball in more dimensions), and is zero outside."""

    def __init__(self, centre: object, radius: float, *, pos: Sequence[int] = (0, 1)) -> None:
        if not radius > 0:
            raise DFPlannerError(f"a region to avoid needs a radius > 0, got {radius}")
        self.centre, self.radius, self.pos = (
            points(centre, len(pos), "the region's centre"),
            radius,
            tuple(pos),
        )

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        d = (_distance2(states, self.pos, self.centre) + 1e-9).sqrt()
        return -(self.radius - d).clamp(min=0).square().sum(1)


class Smooth(Objective):
    """-Σ ‖second difference of the states‖² along time."""

    def __init__(self, dims: Sequence[int] = (0, 1)) -> None:
        self.dims = tuple(dims)

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        s = states[..., list(self.dims)]
        return -(s[:, 2:] - 2 * s[:, 1:-1] + s[:, :-2]).square().sum((1, 2))


class Limits(Objective):
    """-Σ (how far outside [low, high])², for states by default, or for actions."""

    def __init__(self, low: object, high: object, *, of: Literal["states", "actions"] = "states") -> None:
        self.low, self.high, self.of = (
            torch.as_tensor(np.asarray(low, np.float32)),
            torch.as_tensor(np.asarray(high, np.float32)),
            of,
        )
        if self.low.isnan().any() or self.high.isnan().any():
            raise DFPlannerError("a limit is NaN; give numbers, or infinities for what has no limit")
        if (self.low > self.high).any():
            raise DFPlannerError(
                f"a limit's low {self.low.tolist()} lies above its high {self.high.tolist()}; swap them"
            )

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        x = states if self.of == "states" else actions
        out = (self.low.to(x) - x).clamp(min=0) + (x - self.high.to(x)).clamp(min=0)
        return -out.square().flatten(1).sum(1)


class Field(Objective):
    """Σ_t of a score on a regular grid, read by bilinear interpolation: a distance that sees around walls, a cost map.

    values (X, Y): the score at ``origin`` + ``spacing`` · (i, j); or (B, X, Y), one map for each problem. Outside,
    the outermost cells are continued.
    """

    def __init__(self, values: Array, origin: Sequence[float], spacing: float, *, pos: Sequence[int] = (0, 1)) -> None:
        v = torch.as_tensor(np.asarray(values, np.float32))
        self.values = v[None] if v.ndim == 2 else v
        if self.values.ndim != 3 or not torch.isfinite(self.values).all():
            raise DFPlannerError(f"a field needs finite values of shape (X, Y) or (B, X, Y), got {tuple(v.shape)}")
        if min(self.values.shape[1:]) < 2 or not spacing > 0:
            raise DFPlannerError(
                f"a field of shape {tuple(v.shape)} with spacing {spacing} was given; expected at least 2 values "
                "each way, and a spacing > 0"
            )
        self.origin, self.spacing, self.pos = torch.tensor(list(origin)), spacing, tuple(pos)

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        v = _for_each(self.values, states)
        size = torch.tensor(v.shape[1:], device=states.device)
        u = (states[..., list(self.pos)] - self.origin.to(states)) / self.spacing
        lo = u.detach().floor().long().clamp(min=0)
        lo = torch.minimum(lo, size - 2)
        f = u - lo
        batch = torch.arange(v.shape[0], device=states.device)[:, None]

        def corner(i: int, j: int) -> Tensor:
            w = (f[..., 0] if i else 1 - f[..., 0]) * (f[..., 1] if j else 1 - f[..., 1])
            return w * v[batch, lo[..., 0] + i, lo[..., 1] + j]

        return (corner(0, 0) + corner(0, 1) + corner(1, 0) + corner(1, 1)).sum(1)
