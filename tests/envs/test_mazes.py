"""Maps, paths, scores, and the physics of the model against closed forms."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfplanner.types import DFPlannerError
from dfplanner_envs.maze2d import Maze2DEnv
from dfplanner_envs.mazes import (
    MAZES,
    draw_task,
    get_maze,
    in_wall,
    maze_of,
    nearest_cell,
    normalized_score,
    reward,
    shortest_path,
)

mazes = st.sampled_from(list(MAZES.values()))


@pytest.mark.parametrize("maze", MAZES.values(), ids=str)
def test_maps(maze):
    assert len({len(row) for row in maze.rows}) == 1
    assert maze.walls[0].all() and maze.walls[-1].all() and maze.walls[:, [0, -1]].all()
    assert len(maze.free_cells) == (~maze.walls).sum() and maze.free_cells[-1] == maze.goal
    assert maze.free_cells[:-1] == sorted(maze.free_cells[:-1])
    assert maze.rows[maze.goal[0]][maze.goal[1]] == "G"


@pytest.mark.parametrize("maze", [MAZES["umaze"], MAZES["medium"]], ids=str)
def test_paths_are_shortest(maze):
    """Bellman's equation has the true distances as its only solution."""
    free = set(maze.free_cells)
    length = {(a, b): len(shortest_path(maze, a, b)) - 1 for a in free for b in free}
    for (a, b), n in length.items():
        near = [(a[0] + i, a[1] + j) for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        assert n == (0 if a == b else 1 + min(length[c, b] for c in near if c in free))


@given(mazes, st.data())
def test_a_path_walks_over_free_neighbours(maze, data):
    a, b = (data.draw(st.sampled_from(maze.free_cells)) for _ in range(2))
    path = shortest_path(maze, a, b)
    assert (path[0], path[-1]) == (a, b) and set(path) <= set(maze.free_cells)
    assert all(abs(p[0] - q[0]) + abs(p[1] - q[1]) == 1 for p, q in pairwise(path))


@given(mazes, st.data())
def test_a_point_is_in_the_cell_around_it(maze, data):
    cell = data.draw(st.sampled_from(maze.free_cells))
    inside = st.floats(-0.499, 0.499)
    xy = (cell[0] - 0.2 + data.draw(inside), cell[1] - 0.2 + data.draw(inside))
    assert nearest_cell(maze, xy) == cell and not in_wall(maze, xy)
    wall = data.draw(st.sampled_from([tuple(w) for w in np.argwhere(maze.walls)]))
    assert in_wall(maze, (wall[0] - 0.2 + data.draw(inside), wall[1] - 0.2 + data.draw(inside)))


def test_outside_the_map_is_wall():
    assert in_wall(MAZES["umaze"], [[-3.0, 1.0], [1.0, 40.0], [1e6, 1.0]]).all()


@given(mazes, st.floats(0, 800))
def test_scores(maze, ret):
    assert np.isclose(normalized_score(maze, maze.min_score), 0, atol=1e-12)
    assert np.isclose(normalized_score(maze, maze.max_score), 100)
    share = (maze.max_score - maze.min_score) / 100
    assert np.isclose(normalized_score(maze, ret + share) - normalized_score(maze, ret), 1)


def test_rewards_reach_exactly_half_a_metre():
    goal = np.array([1.0, 1.0])
    near = np.array([[1.5, 1.0], [1.0, 0.5], [1.3, 1.4], [np.nextafter(1.5, 2), 1.0], [1.4, 1.4]])
    assert reward(near, goal).tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("multi", [False, True])
def test_draws_are_uniform_over_the_free_cells(multi):
    maze, rng, n = MAZES["medium"], np.random.default_rng(0), 26_000
    tasks = [draw_task(maze, multi, rng) for _ in range(n)]
    start, velocity, goal = (np.array([t[i] for t in tasks]) for i in range(3))
    if not multi:
        assert (goal == maze.goal).all()
    for places in (start, goal) if multi else (start,):
        cells = np.rint(places)
        count = {cell: (cells == cell).all(1).sum() for cell in maze.free_cells}
        assert sum(count.values()) == n
        assert max(abs(c - n / 26) for c in count.values()) < 5 * np.sqrt(n / 26)
        off = places - cells
        assert 0.099 < np.abs(off).max() <= 0.1
        assert np.allclose(off.mean(0), 0, atol=2e-3) and np.allclose(off.std(0), 0.1 / np.sqrt(3), atol=1e-3)
    assert np.allclose(velocity.mean(0), 0, atol=3e-3) and np.allclose(velocity.std(0), 0.1, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("maze2d-umaze", ("umaze", False)),
        ("multi2d-large", ("large", True)),
        ("maze2d-medium-v1", ("medium", False)),
        ("dfplanner/Maze2D-UMaze-v0", ("umaze", False)),
        ("dfplanner/Multi2D-Large-v0", ("large", True)),
    ],
)
def test_names(name, expected):
    maze, multi = maze_of(name)
    assert (maze.name, multi) == expected


@pytest.mark.parametrize("name", ["maze2d-huge", "large", "", "multi2d-", "dfplanner/Maze3D-Large-v0"])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(DFPlannerError, match=r"maze2d-umaze.*multi2d-large"):
        maze_of(name)
    with pytest.raises(DFPlannerError, match="umaze, medium, large"):
        get_maze(name + "?")


def test_a_cell_in_a_wall_has_no_path():
    with pytest.raises(DFPlannerError, match="not free"):
        shortest_path(MAZES["umaze"], (0, 0), (1, 1))
    with pytest.raises(DFPlannerError, match="finite"):
        nearest_cell(MAZES["umaze"], (np.nan, 1.0))


def test_free_motion_is_a_damped_mass():
    """Away from walls: implicit Euler of m v' = 100 a - v for a ball of radius 0.1 and density 1000."""
    env = Maze2DEnv("large")
    mass, h = 4 / 3 * np.pi * 0.1**3 * 1000, 0.01
    obs, _ = env.reset(seed=0, options={"start": (1.0, 1.0), "velocity": (0.0, 0.0)})
    rng = np.random.default_rng(0)
    for _ in range(12):
        action = rng.uniform(-1, 1, 2)
        velocity = obs[2:] + h * (100 * action - obs[2:]) / (mass + h)
        position = obs[:2] + h * velocity
        obs = env.step(action)[0]
        assert np.allclose(obs, [*position, *velocity], atol=1e-12)


@pytest.mark.parametrize("push", [1.0, 0.5])
def test_a_wall_yields_as_d4rls_did(push):
    """A ball at rest, pressed against a wall: MuJoCo's contact law solved by hand.

    Force = k d² p / ((1 - d) w) at penetration p of the margin, 0.002; w = 2 / (3 mass) is the inverse weight
    of MuJoCo before 3.5. Both would be different in an uncorrected model (see ``load_model``).
    """
    env = Maze2DEnv("umaze")
    env.reset(seed=0, options={"start": (1.0, 1.0), "velocity": (0.0, 0.0)})
    obs = np.zeros(4)
    for _ in range(400):
        obs = env.step((-push, 0.0))[0]
    inverse_weight = 2 / (3 * 4 / 3 * np.pi * 0.1**3 * 1000)
    stiffness = 1 / (0.95 * 0.02) ** 2

    def force(p: float) -> float:
        x = min(p / 0.001, 1.0)
        d = 0.9 + 0.05 * (2 * x * x if x < 0.5 else 1 - 2 * (1 - x) ** 2)
        return stiffness * d * d * p / ((1 - d) * inverse_weight)

    low, high = 0.0, 0.002
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if force(middle) < 100 * push else (low, middle)
    face = 0.5 - 0.2  # of the wall cell (0, 1), in the ball's coordinates
    assert abs(obs[2]) < 1e-9
    assert obs[0] == pytest.approx(face + 0.1 + 0.002 - low, abs=1e-8)
