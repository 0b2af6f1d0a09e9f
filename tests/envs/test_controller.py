"""The waypoint controller: bounded, arrives from anywhere at anything, comes to rest, and repeats itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfplanner.types import DFPlannerError
from dfplanner_envs.controller import WaypointController
from dfplanner_envs.mazes import MAZES, Maze, in_wall
from dfplanner_envs.vector import VectorMaze2D


def drive(maze: Maze, starts: np.ndarray, goals: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations (steps, n, 4), actions (steps, n, 2) and whether each lane arrived."""
    n = len(starts)
    simulation, controller = VectorMaze2D(maze, n), WaypointController(maze, n, np.random.default_rng(0))
    simulation.set_state(starts, np.zeros((n, 2)))
    controller.set_goals(np.ones(n, bool), starts, goals)
    obs, seen, done = np.concatenate([starts, np.zeros((n, 2))], axis=1), [], []
    for _ in range(steps):
        seen.append(obs)
        done.append(controller.act(obs))
        obs = simulation.step_physics(done[-1])
    return np.array(seen), np.array(done), controller.arrived


@pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES.keys())
def test_reaches_every_cell_from_the_farthest_and_rests(maze: Maze) -> None:
    goals = np.array(maze.free_cells, float)
    n = len(goals)
    starts = np.roll(goals, n // 2, axis=0) + np.random.default_rng(1).uniform(-0.1, 0.1, (n, 2))
    seen, actions, arrived = drive(maze, starts, goals, maze.horizon)
    assert arrived.all()
    assert np.abs(actions).max() <= 1
    assert not in_wall(maze, seen[..., :2]).any()
    assert np.linalg.norm(seen[-1, :, :2] - goals, axis=1).max() < 1e-3
    assert max(np.abs(seen[-1, :, 2:]).max(), np.abs(actions[-1]).max()) < 1e-2


@given(
    obs=st.lists(st.floats(-20, 20), min_size=4, max_size=4),
    start=st.integers(0, 45),
    end=st.integers(0, 45),
)
@settings(max_examples=60, deadline=None)
def test_the_law_holds_towards_a_point_near_the_path(obs: list[float], start: int, end: int) -> None:
    maze = MAZES["large"]
    controller = WaypointController(maze, 1, np.random.default_rng(0))
    here, there = (np.array(maze.free_cells[i], float)[None] for i in (start, end))
    controller.set_goals([0], here, there)
    action = controller.act([obs])[0]
    # The first waypoint is in the start's or a neighbour's cell, up to 0.2 below its number, or is the goal.
    nearest, farthest = here[0] - 1.2, here[0] + 1
    position, velocity = np.array(obs[:2]), np.array(obs[2:])
    low, high = (np.clip(10 * (x - position) - velocity, -1, 1) for x in (nearest, farthest))
    if np.linalg.norm(position - there) < 0.1:
        low = high = np.clip(10 * (there[0] - position) - velocity, -1, 1)
    assert (low <= action).all() and (action <= high).all()


def test_at_the_goal_it_is_the_plain_pd_law_and_stays_so() -> None:
    controller = WaypointController(MAZES["umaze"], 1, np.random.default_rng(0))
    controller.set_goals([0], [[3, 1]], [[1.05, 0.98]])
    assert not controller.arrived[0]
    controller.act([[1.0, 1.0, 0, 0]])
    assert controller.arrived[0]
    # Pushed away it comes straight back, not to a waypoint on the way.
    np.testing.assert_allclose(controller.act([[1.12, 0.93, 0.3, -0.1]]), [[-1.0, 0.6]])
    controller.set_goals([0], [[1, 1]], [[3, 1]])
    assert not controller.arrived[0]


def test_lanes_are_separate_and_seeds_repeat() -> None:
    maze = MAZES["medium"]
    obs = np.array([[1.0, 1, 0, 0], [6, 6, 0, 0], [3, 3, 0, 0]])
    one, two = (WaypointController(maze, 3, np.random.default_rng(5)) for _ in range(2))
    for controller in (one, two):
        controller.set_goals(np.arange(3), obs[:, :2], np.full((3, 2), 5.0))
    np.testing.assert_array_equal(one.act(obs), two.act(obs))
    two.set_goals(np.array([False, True, False]), [[6, 6]], [[1, 1]])
    first, second = one.act(obs), two.act(obs)
    np.testing.assert_array_equal(first[[0, 2]], second[[0, 2]])
    assert not np.array_equal(first[1], second[1])


def test_what_is_wrong_is_said() -> None:
    controller = WaypointController(MAZES["umaze"], 2, np.random.default_rng(0))
    with pytest.raises(DFPlannerError, match="a lane has no goal"):
        controller.act(np.zeros((2, 4)))
    with pytest.raises(DFPlannerError, match=r"\(3, 4\) came for 2 lanes"):
        controller.act(np.zeros((3, 4)))
    with pytest.raises(DFPlannerError, match="for 1 lanes"):
        controller.set_goals([0], np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(DFPlannerError, match="not finite"):
        controller.set_goals([0], [[1, 1]], [[np.nan, 1]])
