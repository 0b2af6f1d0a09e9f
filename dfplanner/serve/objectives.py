"""What a request may want: the named objectives of ``dfplanner.guidance``, read and checked without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import Array, DFPlannerError, TokenSpec

if TYPE_CHECKING:
    from dfplanner.guidance import Objective
    from dfplanner.runtime.goals import Goal

MAX_TERMS = 8
OPTIONS = {
    "reach_goal": {"goal": "the place to reach", "how": "token (by default), guidance or last"},
    "stay_near": {"point": "the place to stay near", "radius": "no pull inside it; 0 by default"},
    "avoid": {"centre": "of a disc (a ball) to keep out of", "radius": "of that disc, above 0"},
    "smooth": {},
    "limits": {"low": "lower bounds", "high": "upper bounds", "of": "states (by default) or actions"},
}
"""Names and parameters; each takes a ``weight`` besides (1 by default)."""


class BadRequest(DFPlannerError):
    """A message that was understood, and asks for what cannot be."""


@dataclass(frozen=True, eq=False)
class Term:
    """One objective of one request. point (g,): what may differ within a batch; all else is in ``structure``."""

    name: str
    weight: float
    point: Array | None
    rest: tuple[Any, ...] = ()

    @property
    def structure(self) -> tuple[Any, ...]:
        """Terms of equal structure can be one batched objective."""
        return self.name, self.weight, self.rest


def numbers(value: object, shape: tuple[int, ...], what: str, *, finite: bool = True) -> Array:
    """An array of the shape as float32, from an array or list of real numbers; raises BadRequest."""
    expected = f"expected {'finite ' if finite else ''}numbers of shape {shape}"
    if value is None:
        raise BadRequest(f"the {what} is missing; {expected}")
    try:
        a = np.asarray(value)
    except ValueError as e:
        raise BadRequest(f"the {what} is a ragged list; {expected}") from e
    if a.dtype.kind not in "iuf" or a.shape != shape:
        raise BadRequest(f"the {what} has dtype {a.dtype} and shape {a.shape}; {expected}")
    with np.errstate(over="ignore"):
        a = a.astype(np.float32)
    if np.isnan(a).any() or (finite and not np.isfinite(a).all()):
        raise BadRequest(f"the {what} holds a NaN{' or an infinity' if finite else ''}; {expected}")
    return a


def read_terms(goal: object, objective: object, spec: TokenSpec) -> tuple[Term, ...]:
    """A request's goal and objective, either of which may be None; raises BadRequest on what does not make sense."""
    wanted = list(objective) if isinstance(objective, (list, tuple)) else [objective]
    if objective is None:
        wanted = []
    if goal is not None:
        wanted.insert(0, {"name": "reach_goal", "goal": goal})
    if len(wanted) > MAX_TERMS:
        raise BadRequest(f"the request has {len(wanted)} objectives; expected at most {MAX_TERMS}")
    terms = tuple(_term(w, spec) for w in wanted)
    if sum(t.name == "reach_goal" for t in terms) > 1:
        raise BadRequest("the request has several goals; give `goal`, or one objective reach_goal")
    return terms


def _term(wanted: object, spec: TokenSpec) -> Term:
    if not isinstance(wanted, Mapping) or not isinstance(wanted.get("name"), str):
        raise BadRequest(f"an objective is a {type(wanted).__name__}; expected a map with a `name` and its parameters")
    given = {k: v for k, v in wanted.items() if k not in ("name", "weight")}
    name, place = wanted["name"], (len(spec.pos),)
    if name not in OPTIONS:
        raise BadRequest(f"no objective is called {name[:40]!r}; known ones are {', '.join(OPTIONS)}")
    if unknown := given.keys() - OPTIONS[name].keys():
        known = ", ".join([*OPTIONS[name], "weight"])
        raise BadRequest(
            f"the objective {name} takes {known}; it was given {', '.join(sorted(map(str, unknown)))[:80]}"
        )
    weight = _number(wanted.get("weight", 1.0), f"weight of {name}")
    if name == "reach_goal":
        how = _choice(given.get("how", "token"), ("token", "guidance", "last"), "how")
        return Term(name, weight, numbers(given.get("goal"), place, "goal"), (how,))
    if name == "stay_near":
        radius = _number(given.get("radius", 0.0), "radius to stay within")
        return Term(name, weight, numbers(given.get("point"), place, "point to stay near"), (radius,))
    if name == "avoid":
        radius = _number(given.get("radius"), "radius to avoid")
        if radius <= 0:
            raise BadRequest(f"the radius to avoid is {radius}; expected a number above 0")
        return Term(name, weight, numbers(given.get("centre"), place, "centre to avoid"), (radius,))
    if name == "limits":
        of = _choice(given.get("of", "states"), ("states", "actions"), "of")
        shape = (spec.obs_dim if of == "states" else spec.act_dim,)
        low, high = (numbers(given.get(k), shape, f"{k} limit", finite=False) for k in ("low", "high"))
        if (low > high).any():
            raise BadRequest("a low limit lies above its high one; swap them")
        return Term(name, weight, None, (of, tuple(low.tolist()), tuple(high.tolist())))
    return Term(name, weight, None)


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise BadRequest(f"the {what} is a {type(value).__name__}; expected a number of at least 0")
    if not 0 <= float(value) < 1e6:
        raise BadRequest(f"the {what} is {float(value):g}; expected a number from 0 to a million")
    return float(value)


def _choice(value: object, options: Sequence[str], what: str) -> str:
    if not isinstance(value, str) or value not in options:
        raise BadRequest(f"`{what}` is {str(value)[:40]!r}; expected one of {', '.join(options)}")
    return value


def torch_objective(batch: Sequence[tuple[Term, ...]], spec: TokenSpec) -> Objective | None:
    """The objective of a batch whose requests have terms of equal structure; None if they want nothing."""
    from dfplanner import guidance as g

    pos = spec.pos
    make: dict[str, Callable[[NDArray | None, tuple[Any, ...]], Objective]] = {
        "reach_goal": lambda p, r: g.ReachGoal(p, r[0], pos=pos),
        "stay_near": lambda p, r: g.StayNear(p, r[0], pos=pos),
        "avoid": lambda p, r: g.Avoid(p, r[0], pos=pos),
        "smooth": lambda p, r: g.Smooth(pos),
        "limits": lambda p, r: g.Limits(r[1], r[2], of=r[0]),
    }
    parts = []
    for same in zip(*batch, strict=True):
        points = None if same[0].point is None else np.stack([t.point for t in same])
        parts.append((same[0].weight, make[same[0].name](points, same[0].rest)))
    return g.Sum(tuple(parts)) if parts else None


GOAL_ALONE = {"reach_goal": {"goal": "the place to reach", "how": "token (by default) or last"}}
"""What can be had without gradients."""


def goal_alone(batch: Sequence[tuple[Term, ...]], spec: TokenSpec) -> Goal | None:
    """The goal of a batch for a runtime without gradients; raises BadRequest if it wants what needs them."""
    from dfplanner.runtime.goals import Goal

    if any(t.name != "reach_goal" or t.rest == ("guidance",) for terms in batch for t in terms):
        raise BadRequest("this runtime has no gradients; give a `goal`, without objectives that guide")
    if not batch[0]:
        return None
    points: list[Any] = [terms[0].point for terms in batch]
    return Goal(np.stack(points), batch[0][0].rest[0], weight=batch[0][0].weight)
