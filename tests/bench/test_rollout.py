"""Rollouts count what the environment pays; an episode is its seed's, whoever runs beside it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dfplanner.bench.baselines import DataController, RandomPolicy
from dfplanner.bench.mppi import MPPI, MPPIConfig
from dfplanner.bench.rollout import episode_seeds, measure_latency, run_episodes
from dfplanner.types import DFPlannerError
from dfplanner_envs.maze2d import Maze2DEnv
from dfplanner_envs.mazes import MAZES


class Brake:
    """Comes to rest where it is; every third call is said to have planned."""

    nfe_per_plan = 0.0
    planned = False

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        self.calls = 0

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        self.planned = self.calls % 3 == 0
        self.calls += 1
        return -10 * obs[:, 2:]


class Replay(Brake):
    """The data's controller, remembering what it did."""

    def __init__(self, env_id: str) -> None:
        self.inner = DataController(env_id)

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        self.inner.reset(obs, goal, rng)
        self.actions: list[NDArray] = []

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        self.actions.append(self.inner.act(obs, goal))
        return self.actions[-1]


def test_scores_are_those_of_the_single_environment() -> None:
    env_id, seeds = "multi2d-umaze", [3, 11, 4]
    policy = Replay(env_id)
    result = run_episodes(policy, env_id, seeds)
    env = Maze2DEnv("umaze", multi=True)
    for i, seed in enumerate(seeds):
        obs, info = env.reset(seed=seed)
        np.testing.assert_array_equal(info["goal"], result.goal[i])
        np.testing.assert_allclose(result.start[i], obs[:2], rtol=1e-6)
        rewards = []
        for t in range(300):
            np.testing.assert_array_equal(result.trajectories[i, t], obs.astype(np.float32))
            obs, reward, *_ = env.step(policy.actions[t][i])
            rewards.append(reward)
        assert result.returns[i] == sum(rewards)
        assert result.first_arrival[i] == rewards.index(1.0) + 1
        assert result.latched[i] == 300 - rewards.index(1.0)
        assert result.score[i] == pytest.approx((sum(rewards) - 23.85) / (161.86 - 23.85) * 100)


def test_who_never_arrives_scores_nothing_and_who_stays_scores_all() -> None:
    seeds = episode_seeds(0, 30)
    result = run_episodes(Brake(), "maze2d-umaze", seeds)
    away = np.linalg.norm(result.start - result.goal, axis=1) > 0.5
    assert away.any() and not away.all()
    assert (result.first_arrival[away] == -1).all() and (result.returns[away] == 0).all()
    assert (result.latched[away] == 0).all() and not result.success[away].any()
    assert (result.first_arrival[~away] == 1).all() and (result.returns[~away] == result.horizon).all()


def test_an_episode_depends_on_its_seed_alone() -> None:
    alone = run_episodes(Brake(), "multi2d-umaze", [5])
    among = run_episodes(Brake(), "multi2d-umaze", [9, 5, 1])
    np.testing.assert_array_equal(alone.trajectories[0], among.trajectories[1])
    np.testing.assert_array_equal(alone.goal[0], among.goal[1])


@pytest.mark.parametrize("policy", [RandomPolicy(), DataController("multi2d-umaze")])
def test_the_same_seeds_give_the_same_episodes(policy: RandomPolicy | DataController) -> None:
    first, again = (run_episodes(policy, "multi2d-umaze", [1, 2]) for _ in range(2))
    np.testing.assert_array_equal(first.trajectories, again.trajectories)
    other = run_episodes(policy, "multi2d-umaze", [1, 3])
    assert not np.array_equal(first.trajectories[1], other.trajectories[1])


def test_seeds_of_two_benchmarks_do_not_meet_and_a_longer_one_goes_on() -> None:
    assert not set(episode_seeds(0, 500)) & set(episode_seeds(1, 500))
    assert episode_seeds(2, 50)[:10] == episode_seeds(2, 10)
    for seed, episodes in ((-1, 3), (0, 0)):
        with pytest.raises(DFPlannerError, match="give a seed >= 0"):
            episode_seeds(seed, episodes)


def test_bad_requests_are_sentences() -> None:
    with pytest.raises(DFPlannerError, match="known ones are maze2d-umaze"):
        run_episodes(Brake(), "maze2d-giant", [1])
    with pytest.raises(DFPlannerError, match="no seeds"):
        run_episodes(Brake(), "maze2d-umaze", [])
    for sigma in (-0.1, float("nan"), float("inf")):
        with pytest.raises(DFPlannerError, match="action noise of"):
            run_episodes(Brake(), "maze2d-umaze", [1], action_noise=sigma)
    with pytest.raises(DFPlannerError, match="0 plans"):
        measure_latency(Brake, "maze2d-umaze", plans=0)


def test_noise_on_the_actions_is_an_episodes_own_and_is_clipped() -> None:
    class Push(Brake):
        def act(self, obs: NDArray, goal: NDArray) -> NDArray:
            return np.ones((len(obs), 2))

    alone = run_episodes(Push(), "multi2d-umaze", [5], action_noise=0.5)
    among = run_episodes(Push(), "multi2d-umaze", [9, 5], action_noise=0.5)
    np.testing.assert_array_equal(alone.trajectories[0], among.trajectories[1])
    noiseless, weak = (run_episodes(Push(), "multi2d-umaze", [5], action_noise=s) for s in (0.0, 1e-9))
    assert not np.allclose(alone.trajectories, noiseless.trajectories)
    np.testing.assert_allclose(weak.trajectories, noiseless.trajectories, atol=1e-5)
    wild = run_episodes(Push(), "multi2d-umaze", [5], action_noise=1e9)  # whatever its size, the motors give 1
    speed = np.diff(wild.trajectories[0, :, 2:], axis=0)
    assert np.abs(speed).max() < 2 * np.abs(np.diff(noiseless.trajectories[0, :, 2:], axis=0)).max()


def test_progress_hears_of_every_step() -> None:
    class Count:
        n = 0

        def update(self, n: int) -> None:
            self.n += n

    count = Count()
    run_episodes(Brake(), "maze2d-umaze", [0], count)
    assert count.n == 300


def test_latency_tells_calls_that_plan_from_the_rest() -> None:
    latency = measure_latency(Brake, "maze2d-umaze", plans=7)
    assert len(latency.plan_ms) == 7 and len(latency.tick_ms) == 7 * 3 - 2  # a plan, two ticks, ..., a plan
    assert (latency.tick_ms > 0).all() and set(latency.plan_ms) <= set(latency.tick_ms)
    never = measure_latency(RandomPolicy, "maze2d-umaze", plans=2)
    assert never.plan_ms.size == 0 and len(never.tick_ms) == 200
    assert never.to_dict()["plan_ms"] == {"p50": None, "p99": None}


def test_the_data_controller_always_arrives_and_stays() -> None:
    result = run_episodes(DataController("multi2d-medium"), "multi2d-medium", episode_seeds(5, 20))
    assert result.success.all()
    np.testing.assert_array_equal(result.returns, result.latched)


def test_random_actions_fill_their_range() -> None:
    policy = RandomPolicy()
    policy.reset(np.zeros((500, 4)), np.zeros((500, 2)), np.random.default_rng(0))
    actions = policy.act(np.zeros((500, 4)), np.zeros((500, 2)))
    assert actions.shape == (500, 2) and np.abs(actions).max() <= 1
    assert np.abs(actions.mean(axis=0)).max() < 0.1 and actions.min() < -0.95 and actions.max() > 0.95


def test_mppi_costs_are_those_of_the_true_dynamics() -> None:
    rng = np.random.default_rng(0)
    policy = MPPI("maze2d-umaze", MPPIConfig(samples=3, horizon=25), nthread=1)
    env = Maze2DEnv(MAZES["umaze"])
    obs = np.stack([env.reset(seed=s)[0] for s in (0, 1)])
    goal = np.array([[1.0, 1.0], [3.0, 3.0]])
    policy.reset(obs, goal, rng)
    tried = rng.uniform(-1, 1, (2, 3, 25, 2))
    cost = policy._cost(obs, goal, tried)
    for n in range(2):
        for s in range(3):
            env.set_state(obs[n, :2], obs[n, 2:])
            away = [np.linalg.norm(env.step(a)[0][:2] - goal[n]) for a in tried[n, s]]
            assert cost[n, s] == pytest.approx(sum(d - (d <= 0.5) for d in away))


def test_mppi_improves_on_its_plan_and_replans_when_due() -> None:
    policy = MPPI("maze2d-umaze", MPPIConfig(samples=32, horizon=16, every=4, temperature=0.2), nthread=1)
    obs, goal = np.array([[3.0, 1.0, 0, 0]]), np.array([[3.0, 3.0]])
    policy.reset(obs, goal, np.random.default_rng(0))

    def cost() -> float:
        return float(policy._cost(obs, goal, np.repeat(policy._nominal[:, None], 32, axis=1))[0, 0])

    before = cost()
    policy.act(obs, goal)
    assert cost() < before
    planned = [policy.planned]
    for _ in range(7):
        policy.act(obs, goal)
        planned.append(policy.planned)
    assert planned == [True, False, False, False] * 2
