"""OGBench's navigate data made anew: its own code is the oracle for the path; its recipe, for the statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dfplanner.types import DFPlannerError
from dfplanner_envs import make
from dfplanner_envs.ogbench_maze import (
    NOISE,
    SIZES,
    collect_ogbench,
    make_ogbench,
    next_cells,
    ogbench_size,
    turning_cells,
)

pytest.importorskip("ogbench", reason="needs ogbench")
EACH = pytest.mark.parametrize("size", SIZES)


def bare(size: str) -> Any:
    return make_ogbench(f"pointmaze-{size}-navigate-v0").unwrapped


@EACH
def test_next_cells_are_ogbenchs_for_every_start_and_goal(size: str) -> None:
    env = bare(size)
    free = np.argwhere(env.maze_map == 0)
    for goal in free.tolist():
        after = next_cells(env.maze_map == 1, (goal[0], goal[1]))
        for start in free.tolist():
            theirs, _ = env.get_oracle_subgoal(env.ij_to_xy(start), env.ij_to_xy(goal))
            assert after[tuple(start)].tolist() == list(env.xy_to_ij(theirs))


def test_walls_and_what_no_path_leads_from_keep_themselves() -> None:
    walls = np.array([list(row) for row in ("#####", "#.#.#", "#.#.#", "#####")]) == "#"
    after = next_cells(walls, (1, 1))
    own = np.stack(np.indices(walls.shape), -1)
    assert after[2, 1].tolist() == [1, 1]
    rest = np.ones(walls.shape, bool)
    rest[2, 1] = False
    np.testing.assert_array_equal(after[rest], own[rest])


def test_goals_are_where_a_corridor_is_not_straight() -> None:
    rows = ("#######", "#....##", "##.##.#", "##....#", "#######")
    found = turning_cells(np.array([list(row) for row in rows]) == "#")
    assert found == [(1, 1), (1, 2), (1, 4), (2, 5), (3, 2), (3, 5)]


@pytest.fixture(scope="module")
def data() -> Any:
    return collect_ogbench("pointmaze-medium-navigate-v0", 2500, 3)


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_state(data: Any) -> None:
    np.random.seed(99)  # noqa: NPY002 (it is what must not matter)
    again, other = (collect_ogbench("pointmaze-medium-navigate-v0", 1000, seed) for seed in (3, 4))
    for name in ("observations", "actions", "goals", "rewards"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name)[:1000])
    assert not np.array_equal(other.observations, again.observations)


def test_whole_episodes_that_hold_what_was_asked_for(data: Any) -> None:
    assert data.starts.tolist() == [0, 1000, 2000] and len(data.observations) == 3000
    assert data.observations.shape == data.actions.shape == data.goals.shape == (3000, 2)


def test_a_step_is_the_action_where_no_wall_is(data: Any) -> None:
    """position += 0.2 · action, and the actions are clipped as they were executed."""
    assert np.abs(data.actions).max() == 1
    moved, within = np.diff(data.observations, axis=0), np.ones(2999, bool)
    within[data.starts[1:] - 1] = False
    free = np.abs(moved - 0.2 * data.actions[:-1]).max(1) < 1e-4
    assert free[within].mean() > 0.9


def test_the_next_goal_is_drawn_on_success_and_only_then(data: Any) -> None:
    """A reward is told with the step that brought it: within 1.0 of the goal; the row after has another."""
    changed = (np.diff(data.goals, axis=0) != 0).any(1)
    new_episode = np.zeros(2999, bool)
    new_episode[data.starts[1:] - 1] = True
    np.testing.assert_array_equal(changed & ~new_episode, (data.rewards[:-1] > 0) & ~new_episode)
    after = np.linalg.norm(data.observations[1:] - data.goals[:-1], axis=1)
    np.testing.assert_array_equal(after[~new_episode] <= 1, data.rewards[:-1][~new_episode] > 0)
    assert data.rewards.sum() > 10  # it does arrive, again and again


def test_goals_and_starts_lie_in_their_cells(data: Any) -> None:
    env = bare("medium")
    turning = turning_cells(env.maze_map == 1)
    for goal in np.unique(data.goals, axis=0):
        cell = env.xy_to_ij(goal)
        assert tuple(cell) in turning and np.abs(goal - env.ij_to_xy(cell)).max() <= 1 + 1e-6
    for start in data.observations[data.starts]:
        cell = env.xy_to_ij(start)
        assert env.maze_map[tuple(cell)] == 0 and np.abs(start - env.ij_to_xy(cell)).max() <= 1 + 1e-6


def test_actions_are_the_way_to_the_next_cell_and_noise(data: Any) -> None:
    env = bare("medium")
    noise = []
    for xy, goal, action in zip(data.observations, data.goals, data.actions, strict=True):
        aim, _ = env.get_oracle_subgoal(xy, goal)
        way = (np.array(aim) - xy) / np.linalg.norm(np.array(aim) - xy)
        free = np.abs(action) < 1  # not clipped: of those that can hardly be, the whole spread is seen
        noise += (action - way)[free & (np.abs(way) < 0.05)].tolist()
    noise = np.array(noise)
    assert len(noise) > 200
    # a normal of NOISE cut at ±1 = two deviations: its variance is 0.774 of the whole one's
    assert abs(noise.mean()) < 4 * NOISE / len(noise) ** 0.5
    assert abs(noise.std() / (NOISE * 0.774**0.5) - 1) < 0.12


@EACH
def test_a_walker_by_the_observations_goal_arrives(size: str) -> None:
    """The goal in the observation is the one that counts: in all five tasks, and from anywhere to anywhere."""
    env = make(f"pointmaze-{size}-navigate-v0", noise=0.2)
    inner: Any = env.unwrapped
    for k in range(1, 8):
        obs, _ = env.reset(seed=k, options={"task_id": k} if k < 6 else {"resample": True})
        if k < 6:
            info = inner.task_infos[k - 1]
            assert np.abs(obs["observation"] - info["init_xy"]).max() <= 1
            assert np.abs(obs["desired_goal"] - info["goal_xy"]).max() <= 1
        terminated = truncated = False
        while not (terminated or truncated):
            xy, goal = obs["observation"], obs["desired_goal"]
            aim, _ = inner.get_oracle_subgoal(xy, goal)
            aim = goal if inner.xy_to_ij(xy) == inner.xy_to_ij(goal) else np.array(aim)
            action = (aim - xy) / (np.linalg.norm(aim - xy) + 1e-6)
            obs, reward, terminated, truncated, _ = env.step(action.astype(np.float32))
        assert terminated and reward == 1


def test_ids_with_or_without_the_data_sets_name_in_whatever_case() -> None:
    assert ogbench_size("PointMaze-Giant-Navigate-v0") == ogbench_size("pointmaze-giant-v0") == "giant"
    for other in ("pointmaze-teleport-navigate-v0", "antmaze-giant-navigate-v0", "PointMaze_Medium-v3"):
        assert ogbench_size(other) is None
        with pytest.raises(DFPlannerError, match="known are pointmaze-medium"):
            make_ogbench(other)
    with pytest.raises(DFPlannerError, match="at least 1"):
        collect_ogbench("pointmaze-medium-navigate-v0", 0, 0)
