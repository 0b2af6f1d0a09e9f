"""The planner behind the face that gym users know: ``predict``, as Stable-Baselines3's policies have it.

Source: Stable-Baselines3's ``BasePolicy.predict`` and ``evaluate_policy`` (https://stable-baselines3.readthedocs.io).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dfplanner.controller import RecedingHorizonController
from dfplanner.guidance import Objective, ReachGoal
from dfplanner.planner import Planner
from dfplanner.settings import POLICY_SETTINGS, PlannerSettings, policy_settings
from dfplanner.types import DFPlannerError

Floats = NDArray[np.float64]


class Adapter(Protocol):
    """What stands between an environment and its model. Arrays may have a leading axis of environments, or none."""

    def observation(self, raw: Any, /) -> ArrayLike:
        """The model's observation (..., obs) of what the environment gave, an array or a Dict of arrays."""
        ...

    def goal(self, raw: Any, given: ArrayLike | None, /) -> ArrayLike | None:
        """The goal (..., g) in the model's frame: the policy's own, ``given``, if there is one; None: unknown."""
        ...

    def action(self, planned: NDArray[np.float32], /) -> NDArray[Any]:
        """The environment's actions (..., act) of planned ones (..., act)."""
        ...


class PlainAdapter:
    """Nothing is changed; a Dict observation is taken apart by the keys of Gymnasium's goal environments."""

    def observation(self, raw: Any) -> ArrayLike:
        """A Box's array, or a Dict's ``observation``."""
        if not isinstance(raw, Mapping):
            return raw
        if "observation" not in raw:
            raise DFPlannerError(
                f"the observation is a Dict of {', '.join(map(str, raw))}, without 'observation'; pass an adapter that "
                "says which of them the model sees"
            )
        return raw["observation"]

    def goal(self, raw: Any, given: ArrayLike | None) -> ArrayLike | None:
        """The policy's own goal, else a Dict's ``desired_goal``."""
        return raw.get("desired_goal") if given is None and isinstance(raw, Mapping) else given

    def action(self, planned: NDArray[np.float32]) -> NDArray[Any]:
        """As planned."""
        return planned


class PlanState(NamedTuple):
    """What a policy knows of N rollouts between two steps: plain arrays, so that it can be copied, kept or sent."""

    actions: NDArray[Any]
    """(N, replan_every, act) the environment's actions until the next plan is due."""
    at: NDArray[np.int64]
    """(N,) how many of them were given out."""
    goal: Floats
    """(N, g) what was planned for, in the model's frame."""
    plans: NDArray[np.int64]
    """(N,) plans made in this episode."""
    states: NDArray[np.float32]
    """(N, T, obs) the observations that the plans foresee, one chunk apart, in the model's frame."""


class DFPolicy:
    """A checkpoint as a policy. It holds no rollout: that is in the ``state`` which ``predict`` takes and gives back.

    Every environment replans for itself, after ``replan_every`` steps, when its episode starts and when its goal has
    moved; all that are due in a step are planned as one batch, each with noise of its own.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        goal: ArrayLike | None = None,
        adapter: Adapter | None = None,
        objective: Callable[[Floats], Objective] | None = None,
        replan_every: int | None = None,
        action_space: Any = None,
        seed: int = 0,
    ) -> None:
        self.planner, self.goal, self.adapter, self.seed = planner, goal, adapter or PlainAdapter(), int(seed)
        self.objective = objective or (lambda goals: ReachGoal(goals, pos=planner.spec.pos))
        self.replan_every = max(1, planner.spec.chunk // 2) if replan_every is None else replan_every
        RecedingHorizonController(planner, self.replan_every)  # raises if a plan holds fewer actions
        if action_space is not None and not hasattr(action_space, "low"):
            raise DFPlannerError(f"the action space is {action_space}; a planner's actions need a Box")
        self.action_space = action_space
        self._draws = np.random.default_rng(self.seed)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        goal: ArrayLike | None = None,
        adapter: Adapter | None = None,
        settings: PlannerSettings | None = None,
        replan_every: int | None = None,
        device: str = "cpu",
        seed: int = 0,
        objective: Callable[[Floats], Objective] | None = None,
        action_space: Any = None,
    ) -> DFPolicy:
        """By bundled name (``dfplanner checkpoints`` lists them), file, run folder or hub id.

        goal (g,) or (N, g): where to, in the environment's frame; None: the observations say it (``desired_goal``).
        adapter: for environments whose frame or keys are not the model's. settings, replan_every (environment
        steps): by default what is best where the model was trained (``policy_settings``), or half a chunk with settings
        of one's own. objective: from goals (B, g) to what is maximised, by default ``ReachGoal``. action_space: a Box
        that actions are clipped to and shaped as. Raises DFPlannerError on what cannot be had.
        """
        planner = Planner.from_pretrained(name_or_path, settings or POLICY_SETTINGS, device)
        trained = str(planner.checkpoint.facts.get("config", {}).get("env", ""))
        if settings is None:
            planner.settings, chunks = policy_settings(trained)
            replan_every = replan_every or max(1, int(chunks * planner.spec.chunk))
        if adapter is None and trained.startswith("PointMaze_"):  # without one it would run, and miss
            raise DFPlannerError(
                f"{name_or_path} plans in Maze2D's frame, and {trained} has another; pass adapter="
                f"dfplanner_envs.adapters.adapter_for({trained!r})"
            )
        return cls(
            planner,
            goal=goal,
            adapter=adapter,
            objective=objective,
            replan_every=replan_every,
            action_space=action_space,
            seed=seed,
        )

    def predict(
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: ArrayLike | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], PlanState]:
        """The next actions, and the state to pass with the next observations; as Stable-Baselines3 defines it.

        observation: one environment's, or N stacked along the first axis (a Dict's values stacked each): then actions
        are (N, act). state: what the last call gave; None: all begin. episode_start (N,): which of them begin anew.
        deterministic: the noise is the seed's, and the action a function of observation and state; else it is drawn.
        Raises DFPlannerError on a wrong shape, a number that is not finite, or no goal.
        """
        seen, single = self._seen(observation)
        goal = self._goals(observation, len(seen))
        old = None if state is None else self._kept(state, len(seen), goal)
        if old is None:
            fresh = due = np.ones(len(seen), bool)
            plans = np.zeros(len(seen), np.int64)
        else:
            fresh = _started(episode_start, len(seen))
            due = fresh | (old.at >= self.replan_every) | (old.goal != goal).any(1)
            plans = np.where(fresh, 0, old.plans)
        if due.any():
            actions, states = self._plan(seen[due], goal[due], plans[due], deterministic)
            if old is None:
                old = PlanState(actions, plans, goal, plans, states)
            else:  # the caller's state stays what it was
                old = old._replace(actions=old.actions.copy(), states=old.states.copy())
                old.actions[due], old.states[due] = actions, states
        assert old is not None
        at = np.where(due, 0, old.at)
        given = old.actions[np.arange(len(seen)), at]
        return self._fitted(given, single), PlanState(old.actions, at + 1, goal, plans + due, old.states)

    def _plan(
        self, seen: Floats, goal: Floats, plans: NDArray[np.int64], deterministic: bool
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """The environment's actions (B, replan_every, act) and the states foreseen (B, T, obs)."""
        entropy = (
            [[self.seed, int(n)] for n in plans] if deterministic else self._draws.integers(2**62, size=len(plans))
        )
        generators = [torch.Generator(self.planner.device) for _ in plans]
        for generator, e in zip(generators, entropy, strict=True):
            generator.manual_seed(int(np.random.SeedSequence(e).generate_state(1, np.uint64)[0]))
        plan = self.planner.plan(seen, self.objective(goal), generator=generators)
        return self.adapter.action(plan.actions[:, : self.replan_every]), plan.states

    def _seen(self, raw: Any) -> tuple[Floats, bool]:
        """The model's observations (N, obs), and whether they are one environment's."""
        if isinstance(raw, tuple):
            raise DFPlannerError(
                "a tuple came as observation; Gymnasium's reset gives (observation, info), pass the first"
            )
        seen, d = _numbers(self.adapter.observation(raw), "the observation"), self.planner.spec.obs_dim
        if seen.ndim not in (1, 2) or seen.shape[-1] != d or not len(seen):
            raise DFPlannerError(
                f"the observation has the shape {seen.shape}; this checkpoint expects ({d},) of one environment or "
                f"(environments, {d})"
            )
        return np.atleast_2d(seen), seen.ndim == 1

    def _goals(self, raw: Any, n: int) -> Floats:
        goal = self.adapter.goal(raw, self.goal)
        if goal is None:
            raise DFPlannerError(
                "no goal is known: the observation has no desired_goal; give the policy goal=, or wrap the environment "
                "so that its observations hold one"
            )
        goal, g = _numbers(goal, "the goal"), len(self.planner.spec.pos)
        if goal.shape not in ((g,), (n, g)):
            raise DFPlannerError(f"the goal has the shape {goal.shape}; expected ({g},) or ({n}, {g})")
        return np.broadcast_to(goal, (n, g))

    def _kept(self, state: Any, n: int, goal: Floats) -> PlanState:
        if not isinstance(state, tuple) or len(state) != len(PlanState._fields):
            raise DFPlannerError(
                f"the state is a {type(state).__name__} that predict did not give; pass back what it gave, or None"
            )
        kept = PlanState(*state)
        if kept.goal.shape != goal.shape or kept.actions.shape[:2] != (n, self.replan_every):
            raise DFPlannerError(
                f"the state is of {len(kept.goal)} environments and plans of {kept.actions.shape[1]} steps, but the "
                f"observation is of {n} and this policy replans every {self.replan_every}; begin with state=None"
            )
        return kept

    def _fitted(self, actions: NDArray[Any], single: bool) -> NDArray[Any]:
        space = self.action_space
        if space is not None:
            if actions[0].size != np.prod(space.shape):
                raise DFPlannerError(f"an action is {actions.shape[1:]} numbers, but the action space is {space}")
            actions = np.clip(actions.reshape(-1, *space.shape), space.low, space.high).astype(space.dtype)
        return actions[0] if single else actions


def _numbers(value: Any, what: str) -> Floats:
    """The value as float64; raises DFPlannerError if it is no array of finite numbers."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise DFPlannerError(f"{what} is {type(value).__name__} {value!r:.60}; expected an array of numbers") from None
    if not np.isfinite(array).all():
        raise DFPlannerError(f"{what} holds a NaN or an infinity; give finite numbers")
    return array


def _started(episode_start: ArrayLike | None, n: int) -> NDArray[np.bool_]:
    """Which of n episodes begin (n,)."""
    starts = np.asarray(False if episode_start is None else episode_start, bool)
    if starts.shape not in ((), (1,), (n,)):
        raise DFPlannerError(f"episode_start has the shape {starts.shape}; expected ({n},), one for each environment")
    return np.broadcast_to(starts, (n,))
