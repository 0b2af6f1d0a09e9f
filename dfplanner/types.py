"""The words everyone else uses: TokenSpec, Plan, ActionChunk, and the one error a user should ever see."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class DFPlannerError(ValueError):
    """A mistake of the caller, told in one sentence: what came, what was expected, what to do."""


@dataclass(frozen=True)
class TokenSpec:
    """What a token is made of: an observation, and the chunk of actions that led to it.

    A sequence is one goal token followed by ``horizon`` tokens; token i holds the observation at environment step
    ``(i - 1) * chunk`` (counted from the first) and the code of the ``chunk`` actions just before it.
    """

    obs_dim: int
    """Numbers in an observation."""
    act_dim: int
    """Numbers in one action."""
    chunk: int
    """Environment steps (and so actions) a token covers."""
    act_code: int
    """Numbers that stand for a chunk of actions inside a token (principal components)."""
    horizon: int
    """Tokens after the goal token that the model was trained on."""
    dt_s: float
    """Seconds an environment step takes."""
    pos: tuple[int, ...] = (0, 1)
    """Indices of the observation that are the position; a goal is a value for these."""

    parts: int = 2
    """Parts of a token with a noise level of their own: 0 the observation, 1 the actions."""

    @property
    def width(self) -> int:
        """Numbers in a token: observation, then action code."""
        return self.obs_dim + self.act_code

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> TokenSpec:
        """The inverse of ``to_dict``; raises DFPlannerError on unknown or missing fields."""
        try:
            return cls(**{**d, "pos": tuple(d.get("pos", (0, 1)))})
        except TypeError as e:
            raise DFPlannerError(
                f"a TokenSpec could not be read ({e}); the checkpoint's JSON is not ours or too old"
            ) from e


@dataclass(frozen=True)
class Plan:
    """A planned future for a batch of B problems, in the environment's own units.

    states (B, T, obs_dim): state 0 is the one observed, T-1 chunks follow; actions (B, (T-1)*chunk, act_dim): actions
    of chunks not yet denoised are zero; levels (B, T, 2): the noise level each part was left at (0 clean, K noise);
    score (B,): the objective's value (higher is better; 0 without one); dt_s: seconds an action lasts.
    """

    states: Array
    actions: Array
    levels: NDArray[np.int64]
    score: Array
    chunk: int
    dt_s: float
    tokens: Array
    """(B, T, width) the normalised tokens, from which the next plan can be warm-started."""
    trace: tuple[tuple[Array, NDArray[np.int64]], ...] = ()
    """If asked for: after each sampling step, the states (B, T, obs_dim) and the levels (T, 2)."""
    lead: int = 0
    """Actions in front that were under way when it was made: ``actions`` holds so many more, and state 0 is not what
    was observed but what they were foreseen to lead to."""


@dataclass(frozen=True)
class ActionChunk:
    """Actions (B, n, act_dim) to execute from environment step ``start`` on, ``dt_s`` seconds each."""

    actions: Array
    start: int
    dt_s: float
