"""Episodes in memory: flat arrays, cut by `starts`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import Array, DFPlannerError


@dataclass(frozen=True)
class Episodes:
    """N steps in E episodes; row i holds what was seen and what was then done. Read-only by custom.

    observations (N, obs); actions (N, act); goals (N, g): the goal pursued at each step, NaN where there
    was none; rewards (N,); starts (E,): first row of each episode, from 0 rising, each reaching to the next
    one's start; meta: JSON-ready facts (env, seed, controller, stay, dt_s: seconds a step, pos: which numbers of an
    observation a goal is a value for, [0, 1] unless it says so ...); arrival (E,), where known:
    the step of the episode, counted from 0, at which the goal was first reached, or -1.
    Raises DFPlannerError when it is empty, when lengths disagree, or when a number not a goal is not
    finite.
    """

    observations: Array
    actions: Array
    goals: Array
    rewards: Array
    starts: NDArray[np.int64]
    meta: dict[str, Any] = field(default_factory=dict)
    arrival: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for name in ("observations", "actions", "goals", "rewards"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float32))
        for name in ("starts", "arrival"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
        self._check_shapes()
        for name in ("observations", "actions", "rewards"):
            if not np.isfinite(array := getattr(self, name)).all():
                row = int(np.argwhere(~np.isfinite(array))[0][0])
                raise DFPlannerError(f"{name} hold a value that is not finite at row {row}; drop or mend that episode")

    def _check_shapes(self) -> None:
        n = len(self.observations)
        if n == 0:
            raise DFPlannerError("the data set is empty; at least one step is needed")
        for name, axes in (("observations", 2), ("actions", 2), ("goals", 2), ("rewards", 1)):
            shape = getattr(self, name).shape
            if len(shape) != axes or shape[0] != n:
                raise DFPlannerError(
                    f"{name} have the shape {shape}; {axes} axes were expected, the first as long as the "
                    f"{n} observations"
                )
        s = self.starts
        if s.ndim != 1 or len(s) == 0 or s[0] != 0 or s[-1] >= n or (np.diff(s) <= 0).any():
            raise DFPlannerError(f"starts must rise from 0 and stay below the {n} steps; got {s[:5].tolist()}...")
        if self.arrival is not None and self.arrival.shape != s.shape:
            raise DFPlannerError(
                f"arrival has the shape {self.arrival.shape} for {len(s)} episodes; give one number each"
            )

    @classmethod
    def from_trajectories(
        cls,
        trajectories: Iterable[tuple[ArrayLike, ArrayLike]],
        goals: ArrayLike | None = None,
        *,
        pos: Sequence[int] = (0, 1),
        **meta: Any,
    ) -> Episodes:
        """From one (observations, actions) pair for each episode, as a loop over an environment gathers them.

        observations (T, obs) or, with the one after the last action, (T + 1, obs); actions (T, act) or (T,); goals: a
        value (g,) for the numbers ``pos`` of an observation, for each episode; None: there were none. Rewards are 0.
        Other ``meta`` are facts to keep, such as ``dt_s``. Raises DFPlannerError on shapes that do not fit.
        """
        seen: list[NDArray[np.float64]] = []
        done: list[NDArray[np.float64]] = []
        for i, (observations, actions) in enumerate(trajectories):
            o, a = np.asarray(observations, float), np.asarray(actions, float)
            a = a[:, None] if a.ndim == 1 else a
            if o.ndim != 2 or a.ndim != 2 or not len(a) or len(o) - len(a) not in (0, 1):
                raise DFPlannerError(
                    f"episode {i} has observations of shape {o.shape} and actions of shape {a.shape}; expected (T, "
                    "numbers) each, T at least 1, or one observation more"
                )
            if seen and (o.shape[1], a.shape[1]) != (seen[0].shape[1], done[0].shape[1]):
                raise DFPlannerError(f"episode {i} has numbers of {o.shape[1]} and {a.shape[1]}, the first has others")
            seen.append(o[: len(a)])
            done.append(a)
        if not seen:
            raise DFPlannerError("the data set is empty; at least one episode is needed")
        length = np.array([len(a) for a in done])
        wanted = np.full((len(seen), len(pos)), np.nan) if goals is None else np.asarray(goals, float)
        if wanted.shape != (len(seen), len(pos)):
            raise DFPlannerError(
                f"goals of shape {wanted.shape} came; expected {(len(seen), len(pos))}, one for each episode, or None"
            )
        return cls(
            observations=np.concatenate(seen),  # pyright: ignore[reportArgumentType]
            actions=np.concatenate(done),  # pyright: ignore[reportArgumentType]
            goals=np.repeat(wanted, length, axis=0),  # pyright: ignore[reportArgumentType]
            rewards=np.zeros(length.sum(), np.float32),
            starts=np.cumsum(length) - length,
            meta={"pos": [int(p) for p in pos], **meta},
        )

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.starts)

    @property
    def steps(self) -> int:
        """The number of steps, N."""
        return len(self.observations)

    @property
    def ends(self) -> NDArray[np.int64]:
        """(E,) one past the last row of each episode."""
        return np.append(self.starts[1:], self.steps)

    def slices(self) -> Iterator[slice]:
        """The rows of each episode."""
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield slice(start, end)
