"""One connection's side of the planner: reads its requests, keeps its plan, words its replies. No sockets, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfplanner.serve.objectives import BadRequest, Term, numbers, read_terms
from dfplanner.serve.protocol import unpackb
from dfplanner.types import Array, Plan, TokenSpec

OBSERVATION = ("observation", "observation/state", "state")
GOAL = ("goal", "desired_goal")
"""Names under which a request may carry them: ours, openpi's, and those of Gymnasium's goal environments."""
KNOWN = {*OBSERVATION, *GOAL, "objective", "reset", "committed", "elapsed", "seed"}
IGNORED = {"prompt", "achieved_goal", "image", "images"}
"""What robots send to other policies; ``observation/...`` is ignored as well. Any other key is an error."""


@dataclass(frozen=True, eq=False)
class Ask:
    """A request that makes sense. observation (obs,); ``previous``: the plan it continues, ``elapsed`` steps old."""

    observation: Array
    terms: tuple[Term, ...] = ()
    previous: Plan | None = None
    committed: int = 0
    elapsed: int = 0
    seed: int | None = None


class Session:
    """What the server knows of one connection; a plan holds ``horizon`` actions."""

    def __init__(self, spec: TokenSpec, horizon: int, max_bytes: int) -> None:
        self.spec, self.horizon, self.max_bytes = spec, horizon, max_bytes
        self.plan: Plan | None = None

    def read(self, frame: bytes | str) -> Ask:
        """The request in a frame; raises WireError or BadRequest, a sentence for the client."""
        if isinstance(frame, str):
            raise BadRequest("a text frame came; expected a binary one that holds a msgpack map")
        m = unpackb(frame, max_bytes=self.max_bytes)
        if not isinstance(m, dict):
            raise BadRequest(f"the message is a {type(m).__name__}; expected a map with an `observation`")
        for key in m:
            if key not in KNOWN | IGNORED and not str(key).startswith("observation/"):
                raise BadRequest(f"the key {str(key)[:40]!r} is not known; known ones are {', '.join(sorted(KNOWN))}")
        observation = numbers(_one_of(m, OBSERVATION), (self.spec.obs_dim,), "observation")
        terms = read_terms(_one_of(m, GOAL), m.get("objective"), self.spec)
        if _flag(m.get("reset"), "reset"):
            self.plan = None
        committed, elapsed = _count(m.get("committed"), "committed"), _count(m.get("elapsed"), "elapsed")
        seed = _count(m.get("seed"), "seed", most=2**63 - 1)
        return Ask(observation, terms, *self._continuation(committed, elapsed), seed)

    def _continuation(self, committed: int | None, elapsed: int | None) -> tuple[Plan | None, int, int]:
        """The plan to continue, and its committed and elapsed steps; none if the request says nothing of it."""
        plan, kept = self.plan, committed or 0
        if kept and plan is None:
            raise BadRequest(
                f"{kept} actions are said to be committed, but this connection has no plan yet; send 0 at first, after "
                "a reset, and after reconnecting"
            )
        if plan is None or (elapsed is None and not kept):
            return None, 0, 0
        age = max(0, self.horizon - kept) if elapsed is None else elapsed
        if kept and age + kept > self.horizon:
            raise BadRequest(
                f"{kept} actions are committed after {age} elapsed ones, but a reply holds {self.horizon}; ask earlier"
            )
        if age >= (plan.states.shape[1] - 1) * plan.chunk:  # the plan ended before this observation
            return None, 0, 0
        return plan, kept, age

    def reply(self, plan: Plan) -> dict[str, Any]:
        """The message for a plan of a batch of one, which is kept. Every array has at least ``horizon`` rows."""
        self.plan = plan
        states, t, chunk = plan.states[0], plan.states.shape[1], plan.chunk
        steps = np.arange((t - 1) * chunk + 1)
        token, part = np.divmod(steps, chunk)
        after = np.minimum(token + 1, t - 1)
        share = (part / chunk).astype(np.float32)[:, None]
        return {
            "actions": np.ascontiguousarray(plan.actions[0, : self.horizon], np.float32),
            "states": ((1 - share) * states[token] + share * states[after]).astype(np.float32),
            "levels": plan.levels[0, np.where(part == 0, token, after), 0],
            "score": float(plan.score[0]),
        }


def _one_of(m: Mapping[Any, Any], names: tuple[str, ...]) -> Any:
    found = [name for name in names if m.get(name) is not None]
    if len(found) > 1:
        raise BadRequest(f"the request has {' and '.join(found)}, which mean the same; send one of them")
    if not found and names is OBSERVATION:
        raise BadRequest(f"the request has no `observation`; its keys are {', '.join(map(str, m))[:80] or 'none'}")
    return m[found[0]] if found else None


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, (bool, np.bool_, type(None))):
        raise BadRequest(f"`{what}` is a {type(value).__name__}; expected true or false")
    return bool(value)


def _count(value: object, what: str, most: int = 1_000_000) -> int | None:
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not 0 <= int(value) <= most:
        raise BadRequest(f"`{what}` is {str(value)[:40]}; expected a whole number from 0 to {most}")
    return int(value)
