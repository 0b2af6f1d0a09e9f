"""D4RL's three mazes: maps, goals, reference scores, paths over cells, and the MuJoCo model.

A cell is (row, column); rows run along x, columns along y. D4RL resets the ball at a cell's numbers, but its
walls stand 0.2 off them: the middle of cell (r, c) is at (r - 0.2, c - 0.2) in the ball's coordinates.
Source: ``d4rl.pointmaze.maze_model`` and ``d4rl.infos`` (Fu et al. 2020, "D4RL", arXiv:2004.07219).
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import cached_property

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError

Cell = tuple[int, int]

CELL_OFFSET = 0.2
"""A cell's middle lies at (r, c) - CELL_OFFSET in the ball's coordinates."""
BALL_RADIUS = 0.1
GOAL_RADIUS = 0.5
MAX_SPEED = 5.0
DT_S = 0.01
"""Seconds an environment step takes."""


@dataclass(frozen=True)
class Maze:
    """A map and what belongs to it: ``horizon`` in environment steps, ``goal`` cell, reference returns."""

    name: str
    rows: tuple[str, ...]
    horizon: int
    goal: Cell
    min_score: float
    max_score: float

    @cached_property
    def free_cells(self) -> list[Cell]:
        """Cells the ball can be in, in D4RL's order: the open ones row by row, then the goal cell."""
        cells = [(r, c) for r, row in enumerate(self.rows) for c, ch in enumerate(row) if ch == "O"]
        return [*cells, self.goal]

    @cached_property
    def walls(self) -> NDArray[np.bool_]:
        """(rows, columns) true where the map has a wall."""
        return np.array([[ch == "#" for ch in row] for row in self.rows])


def _maze(name: str, rows: str, horizon: int, goal: Cell, low: float, high: float) -> Maze:
    return Maze(name, tuple(rows.split()), horizon, goal, low, high)


MAZES: dict[str, Maze] = {
    m.name: m
    for m in (
        _maze("umaze", "##### #GOO# ###O# #OOO# #####", 300, (1, 1), 23.85, 161.86),
        _maze(
            "medium",
            "######## #OO##OO# #OO#OOO# ##OOO### #OO#OOO# #O#OO#O# #OOO#OG# ########",
            600,
            (6, 6),
            13.13,
            277.39,
        ),
        _maze(
            "large",
            "############ #OOOO#OOOOO# #O##O#O#O#O# #OOOOOO#OOO# #O####O###O# #OO#O#OOOOO# "
            "##O#O#O#O### #OO#OOO#OGO# ############",
            800,
            (7, 9),
            6.7,
            273.99,
        ),
    )
}

TITLES = {"umaze": "UMaze", "medium": "Medium", "large": "Large"}
"""Names of mazes as they appear in Gymnasium ids."""


def get_maze(name: str | Maze) -> Maze:
    """The maze of that name, or the maze given; raises DFPlannerError that lists the known ones."""
    if isinstance(name, Maze):
        return name
    if name not in MAZES:
        raise DFPlannerError(f"no maze is called {name!r}; known mazes are {', '.join(MAZES)}")
    return MAZES[name]


def maze_of(env_id: str) -> tuple[Maze, bool]:
    """The maze that an environment's name means, and whether every reset draws a goal (Multi2D).

    Known are ``maze2d-umaze``, ``multi2d-large``, D4RL's ``maze2d-medium-v1``,
    ``dfplanner/Multi2D-Large-v0``; case does not matter. Raises DFPlannerError that lists the known names.
    """
    pattern = rf"(?:dfplanner/)?(maze2d|multi2d)-({'|'.join(MAZES)})(?:-v[01])?"
    match = re.fullmatch(pattern, str(env_id).strip().lower())
    if match is None:
        known = [f"{task}-{name}" for task in ("maze2d", "multi2d") for name in MAZES]
        raise DFPlannerError(f"no environment is called {env_id!r}; known ones are {', '.join(known)}")
    return MAZES[match[2]], match[1] == "multi2d"


def normalized_score(maze: Maze, ret: ArrayLike) -> NDArray[np.float64] | np.float64:
    """D4RL's score of raw return(s), of the same shape: 0 at its reference minimum, 100 at its maximum."""
    return 100.0 * (np.asarray(ret, np.float64) - maze.min_score) / (maze.max_score - maze.min_score)


def in_wall(maze: Maze, xy: ArrayLike) -> NDArray[np.bool_]:
    """(...) whether points (..., 2), in the ball's coordinates, lie inside a wall or outside the map."""
    cell = np.rint(np.asarray(xy, np.float64) + CELL_OFFSET).astype(int)
    inside = np.all((cell >= 0) & (cell < maze.walls.shape), axis=-1)
    r, c = np.moveaxis(np.where(inside[..., None], cell, 0), -1, 0)
    return np.where(inside, maze.walls[r, c], True)


def nearest_cell(maze: Maze, xy: ArrayLike) -> Cell:
    """The free cell whose middle is nearest to the point (2,): the cell around it, if that is free.

    Raises DFPlannerError unless two finite numbers come.
    """
    point = np.asarray(xy, np.float64)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise DFPlannerError(f"a position is 2 finite numbers (x, y), but {xy!r} came")
    middles = np.array(maze.free_cells) - CELL_OFFSET
    return maze.free_cells[int(np.argmin(np.square(middles - point).sum(axis=1)))]


def shortest_path(maze: Maze, a: Cell, b: Cell) -> list[Cell]:
    """Cells of a shortest path over 4-neighbours from ``a`` to ``b``, both included; always the same one.

    Raises DFPlannerError where an end is not a free cell (every free cell of the three mazes is reachable).
    """
    free = set(maze.free_cells)
    a, b = (int(a[0]), int(a[1])), (int(b[0]), int(b[1]))
    for cell in (a, b):
        if cell not in free:
            raise DFPlannerError(f"cell {cell} of maze {maze.name} is not free; choose one of {maze.free_cells}")
    came: dict[Cell, Cell] = {b: b}
    queue = deque([b])
    while queue and a not in came:
        r, c = queue.popleft()
        for cell in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if cell in free and cell not in came:
                came[cell] = (r, c)
                queue.append(cell)
    if a not in came:
        raise DFPlannerError(f"no path leads from cell {a} to cell {b} in maze {maze.name}")
    path = [a]
    while path[-1] != b:
        path.append(came[path[-1]])
    return path


def draw_task(maze: Maze, multi: bool, rng: np.random.Generator) -> tuple[NDArray, NDArray, NDArray]:
    """Start (2,), start velocity (2,) and goal (2,) of an episode, with D4RL's draws in D4RL's order.

    The start is uniform over the free cells, ±0.1 on each axis; velocity N(0, 0.1²); the goal is the maze's
    own cell, or with ``multi`` any free cell, ±0.1. What options override is drawn all the same, so that a
    seed means the same episode with and without them.
    """

    def place() -> NDArray:
        cell = maze.free_cells[rng.choice(len(maze.free_cells))]
        return np.array(cell, np.float64) + rng.uniform(-0.1, 0.1, size=2)

    start = place()
    velocity = rng.standard_normal(2) * 0.1
    goal = place() if multi else np.array(maze.goal, np.float64)
    return start, velocity, goal


def reward(xy: NDArray, goal: NDArray) -> NDArray[np.float64]:
    """(...) D4RL's sparse reward: 1 where positions (..., 2) are within 0.5 of goals (..., 2), else 0."""
    d = xy - goal
    return (np.sqrt(d[..., 0] ** 2 + d[..., 1] ** 2) <= GOAL_RADIUS).astype(np.float64)


def mjcf(maze: Maze) -> str:
    """The maze as a MuJoCo XML string: D4RL's model with today's margins.

    D4RL has a margin of 0.002 on every geom, and MuJoCo took the larger one of a pair; since 3.5 it adds
    them, so every geom has half of it here.
    """
    boxes = "\n    ".join(
        f'<geom name="wall_{r}_{c}" type="box" pos="{r + 1} {c + 1} 0" size="0.5 0.5 0.2" material="wall"/>'
        for r, c in np.argwhere(maze.walls)
    )
    return f"""<mujoco model="{maze.name}">
  <compiler inertiafromgeom="true" angle="radian"/>
  <option timestep="{DT_S}" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <default>
    <joint damping="1" limited="false"/>
    <geom friction=".5 .1 .1" density="1000" margin="0.001" condim="1" contype="2" conaffinity="1"/>
    <motor ctrlrange="-1 1" ctrllimited="true" gear="100"/>
  </default>
  <asset>
    <material name="ground" rgba=".2 .3 .4 1"/>
    <material name="wall" rgba=".7 .5 .3 1"/>
    <material name="target" rgba=".6 .3 .3 1"/>
  </asset>
  <visual><headlight ambient=".4 .4 .4" diffuse=".8 .8 .8" specular="0.1 0.1 0.1"/><map znear=".01"/></visual>
  <worldbody>
    <geom type="plane" size="40 40 0.25" pos="0 0 -0.1" contype="1" conaffinity="0" material="ground"/>
    <body name="particle" pos="1.2 1.2 0">
      <geom name="particle_geom" type="sphere" size="{BALL_RADIUS}" rgba="0 0 1 1" contype="1"/>
      <joint name="ball_x" type="slide" axis="1 0 0"/>
      <joint name="ball_y" type="slide" axis="0 1 0"/>
    </body>
    <site name="target_site" pos="{maze.goal[0] + 1.2} {maze.goal[1] + 1.2} 0" size="0.2" material="target"/>
    {boxes}
  </worldbody>
  <actuator><motor joint="ball_x"/><motor joint="ball_y"/></actuator>
</mujoco>
"""


def load_model(maze: Maze) -> mujoco.MjModel:  # pyright: ignore
    """The compiled model of the maze, its contacts as in the MuJoCo that D4RL was made with.

    MuJoCo averaged the ball's inverse weight over three axes though it moves along two; it no longer does,
    which changes how hard walls are. With both corrections 4.0 agrees with 2.3.7 to 1e-13 over episodes full
    of hits.
    """
    model = mujoco.MjModel.from_xml_string(mjcf(maze))  # pyright: ignore
    particle = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "particle")  # pyright: ignore
    model.body_invweight0[particle, 0] *= 2 / 3
    return model
