"""Tasks of other packages run as their packages have them, in the frame of their models."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dfplanner.bench.baselines import CellWalker, DataController, RandomPolicy
from dfplanner.bench.report import make_run, text_table
from dfplanner.bench.rollout import measure_latency, run_episodes
from dfplanner.bench.rows import default_rows, make_policy, note_of
from dfplanner.bench.tasks import drawn_plan, task_of
from dfplanner.types import DFPlannerError, Plan
from dfplanner_envs.mazes import in_wall
from dfplanner_envs.point_maze import from_maze2d, turn_from_maze2d
from dfplanner_envs.wrappers import is_arm, known_ids, make

POINT, OGBENCH = "PointMaze_UMaze-v3", "pointmaze-medium-navigate-v0"


@pytest.fixture
def point_maze() -> None:
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed (the extra robotics)")


@pytest.fixture
def ogbench() -> None:
    pytest.importorskip("ogbench", reason="OGBench is not installed (the extra ogbench)")


class Recorder:
    """A policy whose actions are remembered."""

    nfe_per_plan = 0.0
    planned = False

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        self.inner.reset(obs, goal, rng)
        self.actions: list[NDArray] = []

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        self.actions.append(self.inner.act(obs, goal))
        return self.actions[-1]


@pytest.mark.parametrize("env_id", [i for i in known_ids() if not is_arm(i)])
def test_a_task_has_one_name_however_its_id_is_spelt(env_id: str) -> None:
    assert task_of(env_id).name == task_of(env_id.swapcase()).name == env_id
    assert task_of(env_id).weights == env_id.replace("multi2d", "maze2d")


def test_an_unknown_one_is_told_all_that_are_known() -> None:
    with pytest.raises(DFPlannerError, match=f"'antmaze'; known ones are {re.escape(', '.join(known_ids()))}"):
        task_of("antmaze")


@pytest.mark.usefixtures("point_maze")
def test_point_maze_pays_what_gymnasium_robotics_pays() -> None:
    import gymnasium

    policy, seeds = Recorder(DataController(task_of(POINT).maze)), [10_003, 10_011]  # pyright: ignore
    result = run_episodes(policy, POINT, seeds)
    maze = task_of(POINT).maze  # pyright: ignore
    for i, seed in enumerate(seeds):
        env = gymnasium.make(POINT)
        raw, _ = env.reset(seed=seed)
        rewards = []
        for t in range(result.horizon):
            state = result.trajectories[i, t]
            back = np.concatenate([from_maze2d(maze, state[:2]), turn_from_maze2d(state[2:])])
            np.testing.assert_allclose(back, raw["observation"], atol=1e-5)
            np.testing.assert_allclose(from_maze2d(maze, result.goal[i]), raw["desired_goal"])
            raw, reward, *_ = env.step(turn_from_maze2d(policy.actions[t][i]).astype(np.float32))
            rewards.append(float(reward))
        assert result.returns[i] == sum(rewards) == result.score[i] > 0
        assert result.first_arrival[i] == rewards.index(1.0) + 1
    assert not in_wall(maze, result.trajectories[..., :2]).any()


@pytest.mark.usefixtures("ogbench")
def test_ogbench_ends_at_the_goal_and_its_tasks_take_turns() -> None:
    seeds = [10_000, 10_001, 10_002, 10_003, 10_004, 10_007]
    before = np.random.get_state()  # noqa: NPY002
    policy = Recorder(task_of(OGBENCH).controller())
    result = run_episodes(policy, OGBENCH, seeds)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert result.success.all() and (result.returns == 1).all() and (result.score == 100).all()
    single = make(OGBENCH)
    for i, seed in enumerate(seeds):
        raw, _ = single.reset(seed=seed, options={"task_id": seed % 5 + 1})
        np.testing.assert_array_equal(raw["desired_goal"], result.goal[i])
        over, t = False, 0
        while not over:
            np.testing.assert_array_equal(raw["observation"].astype(np.float32), result.trajectories[i, t])
            raw, reward, over, *_ = single.step(policy.actions[t][i].astype(np.float32))
            t += 1
        assert (reward, t) == (1.0, result.first_arrival[i])
        assert np.linalg.norm(raw["observation"] - result.goal[i]) <= 1.0
        assert (result.trajectories[i, t:] == result.trajectories[i, t]).all()
        task: Any = single.unwrapped.task_infos[seed % 5]  # pyright: ignore
        assert single.unwrapped.xy_to_ij(result.goal[i]) == task["goal_ij"]  # pyright: ignore
        assert single.unwrapped.xy_to_ij(result.start[i]) == task["init_ij"]  # pyright: ignore


@pytest.mark.usefixtures("ogbench")
def test_a_run_of_ogbench_says_how_each_task_went() -> None:
    class Still(RandomPolicy):
        def act(self, obs: NDArray, goal: NDArray) -> NDArray:
            return 0 * obs

    result = run_episodes(Still(), OGBENCH, range(10_000, 10_007))
    assert (result.first_arrival == -1).all() and (result.returns == 0).all()
    half = {**vars(result), "first_arrival": np.array([5, -1, -1, 8, 9, 7, -1])}
    one = make_run(type(result)(**half), None, policy="p", actions=None, seed=0, nfe_per_plan=0)
    assert {k: (t["mean"], t["n"]) for k, t in one["tasks"].items()} == {
        "task1": (1.0, 2), "task2": (0.0, 2), "task3": (0.0, 1), "task4": (1.0, 1), "task5": (1.0, 1),
    }  # fmt: skip
    assert one["success_rate"]["mean"] == pytest.approx(4 / 7) and "normalized_score" not in one
    assert "100 0 0 100 100" in text_table([one])


@pytest.mark.usefixtures("ogbench")
def test_pictures_of_ogbench_have_its_walls_where_it_has_them() -> None:
    task, env = task_of(OGBENCH), make(OGBENCH).unwrapped
    rng = np.random.default_rng(0)
    cells = rng.integers(0, env.maze_map.shape[0], (50, 2))  # pyright: ignore
    xy = np.array([env.ij_to_xy(tuple(c)) for c in cells]) + rng.uniform(-1.9, 1.9, (50, 2))  # pyright: ignore
    drawn = np.rint(task.drawn(xy) + 0.2).astype(int)
    walls = np.array([[c == "#" for c in row] for row in task.rows])
    np.testing.assert_array_equal(drawn, cells)
    np.testing.assert_array_equal(walls[tuple(drawn.T)], env.maze_map[tuple(cells.T)] == 1)  # pyright: ignore
    zero = np.zeros((1, 4), np.float32)
    states = xy.reshape(1, 50, 2).astype(np.float32)
    plan = Plan(states, zero[None], np.zeros((1, 50, 2), int), zero[0, :1], 4, 0.1, zero[None], ((states, zero),))  # pyright: ignore
    np.testing.assert_allclose(drawn_plan(task, plan).states[0], task.drawn(xy), rtol=1e-5)
    np.testing.assert_array_equal(drawn_plan(task, plan).trace[0][0], drawn_plan(task, plan).states)


@pytest.mark.usefixtures("ogbench")
def test_the_cell_walker_needs_no_more_steps_than_its_path_is_long() -> None:
    env = make("pointmaze-giant-navigate-v0").unwrapped
    walker = CellWalker(env)
    start, goal = np.array([[0.0, 0.0]]), np.array([env.ij_to_xy((10, 14))], float)  # pyright: ignore
    walker.reset(start, goal, np.random.default_rng(0))
    xy = start.copy()
    cells = [env.xy_to_ij(xy[0])]  # pyright: ignore
    while cells[-1] != (10, 14):
        action = walker.act(xy, goal)
        assert np.linalg.norm(action) <= 1 + 1e-9
        xy = xy + 0.2 * action
        cell = env.xy_to_ij(xy[0])  # pyright: ignore
        cells += [] if cell == cells[-1] else [cell]
        assert len(cells) < 60
    _, distance = env.get_oracle_subgoal(start[0], goal[0])  # pyright: ignore
    assert [int(distance[c]) for c in cells] == list(range(len(cells) - 1, -1, -1))


@pytest.mark.usefixtures("ogbench")
def test_latency_is_measured_over_episodes_that_end() -> None:
    latency = measure_latency(lambda: task_of(OGBENCH).controller(), OGBENCH, plans=5, seed=10_000)
    assert len(latency.tick_ms) == 500 and latency.plan_ms.size == 0


def test_rows_that_cannot_be_had_are_sentences() -> None:
    assert set(default_rows(POINT)) - {"df"} == {"data-controller", "random"}
    assert "mppi" in default_rows("maze2d-umaze") and default_rows(POINT, "x") == ["df", "data-controller", "random"]
    assert "true map" in note_of("data-controller", POINT) and "noise" in note_of("data-controller", OGBENCH)
    with pytest.raises(DFPlannerError, match="mppi simulates Maze2D, not PointMaze_UMaze-v3"):
        make_policy("mppi", POINT)
    with pytest.raises(DFPlannerError, match=r"trained on .* of \(4, 2\) numbers, but .* has \(2, 2\)"):
        make_policy("df", OGBENCH, checkpoint="maze2d-umaze")
