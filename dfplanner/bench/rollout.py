"""Episodes of a policy, scored: all of them in lock step, and one alone with a clock."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dfplanner.bench.stats import percentiles
from dfplanner.bench.tasks import Task, task_of
from dfplanner.types import DFPlannerError

WARM_UP = 3
"""Plans that a latency measurement makes before it starts to count: caches fill, kernels are chosen."""
TICKS_PER_PLAN = 100
"""A latency measurement of P plans ends after P times as many ticks at the latest: some policies never
plan.
"""


class RolloutPolicy(Protocol):
    """What the benchmark asks of a policy; N episodes run in lock step.

    A policy may also have ``last_plan``, the ``Plan`` it follows: then the first one is kept for pictures.
    """

    @property
    def nfe_per_plan(self) -> float:
        """Network evaluations that a plan costs; 0 for baselines."""
        ...

    @property
    def planned(self) -> bool:
        """Whether the last ``act`` made a new plan."""
        ...

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """Begin N episodes at observations (N, obs_dim) with goals (N, 2)."""
        ...

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        """Actions (N, 2) in [-1, 1] for observations (N, obs_dim) and goals (N, 2); called at every step."""
        ...


class Progress(Protocol):
    """A tqdm bar, or anything else that counts."""

    def update(self, n: int, /) -> Any:
        """n more environment steps are done."""
        ...


@dataclass(frozen=True)
class RolloutResult:
    """What N episodes came to, one entry of each array an episode."""

    env_id: str
    seeds: tuple[int, ...]
    horizon: int
    start: NDArray[np.float64]
    """(N, 2) where it began."""
    goal: NDArray[np.float64]
    """(N, 2)"""
    returns: NDArray[np.float64]
    """(N,) sum of rewards: in the mazes, environment steps within reach of the goal."""
    first_arrival: NDArray[np.int64]
    """(N,) environment steps until the first reward (1: the first step brought it); -1: never."""
    trajectories: NDArray[np.float32]
    """(N, horizon + 1, obs_dim) observations, the first one included; the last one repeats where an episode ended."""
    first_plan: NDArray[np.float32] | None = None
    """(N, T, obs_dim) states of the plan made at the first step, if the policy shows its plans."""
    action_noise: float = 0.0
    """Standard deviation of the noise on the actions."""

    @property
    def success(self) -> NDArray[np.bool_]:
        """(N,) whether the goal was reached at any time."""
        return self.first_arrival >= 0

    @property
    def latched(self) -> NDArray[np.float64]:
        """(N,) the return as if the reward had stayed 1 from the first arrival on."""
        return np.where(self.success, self.horizon - self.first_arrival + 1, 0).astype(np.float64)

    @property
    def score(self) -> NDArray[np.float64]:
        """(N,) the task's own number for each episode: D4RL's score, or PointMaze's return, or 100 for success."""
        return task_of(self.env_id).score(self)


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """The seeds of a benchmark's episodes: 1,000,000·seed + i, so that two benchmark seeds share no episode.

    Raises DFPlannerError on a negative seed or fewer than one episode.
    """
    if seed < 0 or not 1 <= episodes <= 1_000_000:
        raise DFPlannerError(f"seed {seed} and {episodes} episodes came; give a seed >= 0 and 1 to 1,000,000 episodes")
    return [1_000_000 * seed + i for i in range(episodes)]


def checked_noise(sigma: float) -> float:
    """A standard deviation of noise on the actions; raises DFPlannerError unless it is finite and at least 0."""
    if not 0 <= sigma < np.inf:
        raise DFPlannerError(f"action noise of {sigma} came; give a standard deviation of at least 0")
    return sigma


def run_episodes(
    policy: RolloutPolicy,
    env_id: str,
    seeds: Sequence[int],
    progress: Progress | None = None,
    *,
    action_noise: float = 0.0,
) -> RolloutResult:
    """One episode for each of ``seeds`` in ``env_id`` (``maze2d-large``, ``PointMaze_UMaze-v3``...), until all ended.

    Start, goal and noise of an episode depend on its own seed alone, not on the others. ``action_noise``: standard
    deviation of Gaussian noise that is added to every action (the sum is clipped). ``progress`` is told of every
    environment step. Raises DFPlannerError on an unknown environment, no seeds or bad actions.
    """
    if not len(seeds):
        raise DFPlannerError("no seeds came; give one for each episode to run")
    task, n = task_of(env_id), len(seeds)
    noise = _noise(seeds, task, action_noise)
    lanes = task.lanes(n)
    obs, goal = lanes.reset(seeds)
    seen = np.empty((n, task.horizon + 1, task.obs_dim), np.float32)
    rewards = np.zeros((n, task.horizon))
    seen[:, 0] = obs
    first_plan = None
    policy.reset(obs, goal, _policy_rng(seeds))
    for t in range(task.horizon):
        action = policy.act(obs, goal)
        if t == 0 and getattr(policy, "last_plan", None) is not None:
            first_plan = np.array(policy.last_plan.states, np.float32)  # pyright: ignore[reportAttributeAccessIssue]
        if noise is not None:
            action = np.clip(action + noise[:, t], -1.0, 1.0)
        obs, rewards[:, t], ended = lanes.step(action)
        seen[:, t + 1] = obs
        if progress is not None:
            progress.update(1)
        if ended.all():
            seen[:, t + 2 :] = obs[:, None]
            break
    arrived = rewards.any(axis=1)
    return RolloutResult(
        env_id,
        tuple(int(s) for s in seeds),
        task.horizon,
        start=seen[:, 0, :2].astype(np.float64),
        goal=np.array(goal, np.float64),
        returns=rewards.sum(axis=1),
        first_arrival=np.where(arrived, rewards.argmax(axis=1) + 1, -1),
        trajectories=seen,
        first_plan=first_plan,
        action_noise=action_noise,
    )


def _noise(seeds: Sequence[int], task: Task, sigma: float) -> NDArray[np.float64] | None:
    """(N, horizon, 2) noise on the actions, each episode's from its seed; None: none."""
    if checked_noise(sigma) == 0:
        return None
    return np.stack([sigma * np.random.default_rng([0xAC7, int(s)]).standard_normal((task.horizon, 2)) for s in seeds])


def _policy_rng(seeds: Sequence[int]) -> np.random.Generator:
    """The policy's randomness: fixed by the episodes' seeds, apart from the streams these give the
    environments.
    """
    return np.random.default_rng([0x9E3779B9, *(int(s) for s in seeds)])


@dataclass(frozen=True)
class Latency:
    """Wall time of ``act`` on one environment and one thread, milliseconds, a number for each call.

    ``tick_ms`` holds every call, ``plan_ms`` those of them that made a new plan (none: empty).
    """

    plan_ms: NDArray[np.float64]
    tick_ms: NDArray[np.float64]

    @classmethod
    def none(cls) -> Latency:
        """Nothing was timed."""
        return cls(np.empty(0), np.empty(0))

    def to_dict(self) -> dict[str, dict[str, float | None]]:
        """{"plan_ms": {"p50", "p99"}, "tick_ms": ...}"""
        return {"plan_ms": percentiles(self.plan_ms), "tick_ms": percentiles(self.tick_ms)}


def measure_latency(
    policy_factory: Callable[[], RolloutPolicy],
    env_id: str,
    plans: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Latency:
    """Time ``act`` of a new policy in closed loop, one environment, one thread, until it has planned
    ``plans`` times.

    A plan's time is that of the whole call that made it, from observation to action; a tick's time is that of
    any call. ``reset`` is not timed, the first three plans are not counted, and episodes follow one another.
    It ends after ``plans`` times 100 ticks in any case (some policies never plan). ``progress`` is told of
    every plan that counts.
    """
    if plans < 1:
        raise DFPlannerError(f"{plans} plans to time were asked for; ask for at least 1")
    task = task_of(env_id)
    ticks: list[tuple[float, bool]] = []
    made = 0
    with _one_torch_thread():
        for ms, planned in _ticks(task, policy_factory(), seed):
            ticks.append((ms, planned))
            made += planned
            if progress is not None and planned and made > WARM_UP:
                progress.update(1)
            if made == plans + WARM_UP or len(ticks) == plans * TICKS_PER_PLAN:
                break
    tick_ms, new = np.array([ms for ms, _ in ticks]), np.array([planned for _, planned in ticks])
    at = np.flatnonzero(new)
    first = at[WARM_UP] if at.size > WARM_UP else 0
    return Latency(plan_ms=tick_ms[first:][new[first:]], tick_ms=tick_ms[first:])


def _ticks(task: Task, policy: RolloutPolicy, seed: int) -> Iterator[tuple[float, bool]]:
    """Milliseconds of each ``act`` and whether it planned, episode after episode, without end."""
    lanes = task.lanes(1)
    for episode in itertools.count(seed):
        obs, goal = lanes.reset([episode])
        policy.reset(obs, goal, _policy_rng([episode]))
        for _ in range(task.horizon):
            began = time.perf_counter()
            action = policy.act(obs, goal)
            ms = 1e3 * (time.perf_counter() - began)
            yield ms, bool(policy.planned)
            obs, _, ended = lanes.step(action)
            if ended.all():
                break


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Torch on one thread for a while; NumPy's matrix products follow OMP_NUM_THREADS, set at start-up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
