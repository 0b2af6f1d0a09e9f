"""OGBench's pointmaze: its mazes, its five tasks each, and its `navigate` data made anew with its own recipe.

Source: Park et al. 2025, "OGBench" (arXiv:2410.20092), and the `ogbench` package, whose environment is used as it is.
Importing this needs no ogbench; making an environment does (`pip install "dfplanner[ogbench]"`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplanner.data.episodes import Episodes
from dfplanner.types import DFPlannerError

SIZES = {"medium": 1000, "large": 1000, "giant": 2000}
"""Actions in an episode of the navigate data, by maze."""
NOISE = 0.5
"""Standard deviation of the noise on the walker's actions, on each axis."""
TASKS = 5
DT_S = 0.1
"""Seconds of simulation an environment step takes."""

Cell = tuple[int, int]


def ogbench_size(env_id: str) -> str | None:
    """The maze's size that an id such as ``pointmaze-giant-navigate-v0`` names; None: no such id."""
    match = re.fullmatch(rf"pointmaze-({'|'.join(SIZES)})(?:-navigate)?-v0", env_id.strip().lower())
    return match[1] if match else None


def make_ogbench(env_id: str, **kwargs: Any) -> Any:
    """OGBench's environment (nothing is downloaded); raises DFPlannerError on another id, or without ogbench."""
    size = ogbench_size(env_id)
    if size is None:
        known = ", ".join(f"pointmaze-{s}-navigate-v0" for s in SIZES)
        raise DFPlannerError(f"OGBench's pointmaze has no {env_id!r}; known are {known}")
    try:
        import ogbench  # noqa: F401 (registers the environments)
    except ImportError as e:
        raise DFPlannerError(f'{env_id} needs OGBench ({e}); install it: pip install "dfplanner[ogbench]"') from e
    import gymnasium

    return gymnasium.make(f"pointmaze-{size}-v0", **kwargs)


def next_cells(walls: NDArray[np.bool_], goal: Cell) -> NDArray[np.int64]:
    """(rows, columns, 2) for every free cell the next one on a shortest path to the goal; the goal's own is itself.

    Where several are as near, the first of up, left, down, right: OGBench's order. Walls, and cells from which no path
    leads, keep themselves.
    """
    far = walls.size + 1
    distance = np.full(walls.shape, far)
    distance[goal], ring = 0, [goal]
    while ring:
        ring = [c for cell in ring for c in _around(cell, walls) if _closer(distance, c, distance[cell] + 1)]
    after = np.moveaxis(np.indices(walls.shape), 0, -1)
    for r, c in np.argwhere(~walls).tolist():
        best = min([(r, c), *_around((r, c), walls)], key=lambda cell: distance[cell])
        after[r, c] = best
    return after


def _around(cell: Cell, walls: NDArray[np.bool_]) -> list[Cell]:
    r, c = cell
    return [n for n in ((r - 1, c), (r, c - 1), (r + 1, c), (r, c + 1)) if not walls[n]]


def _closer(distance: NDArray, cell: Cell, steps: int) -> bool:
    if distance[cell] <= steps:
        return False
    distance[cell] = steps
    return True


def turning_cells(walls: NDArray[np.bool_]) -> list[Cell]:
    """The free cells that are not the middle of a straight corridor: OGBench draws goals from these."""
    found = []
    for r, c in np.argwhere(~walls).tolist():
        up, left, right, down = (not walls[n] for n in ((r - 1, c), (r, c - 1), (r, c + 1), (r + 1, c)))
        if (up, left, right, down) not in ((True, False, False, True), (False, True, True, False)):
            found.append((r, c))
    return found


def collect_ogbench(env_id: str, steps: int, seed: int, progress: Callable[[int], Any] | None = None) -> Episodes:
    """``navigate`` data: walk to the next cell of the shortest path, with noise; on arrival the next goal is drawn.

    At least ``steps`` steps in whole episodes; ``goals`` is the goal pursued at each, ``rewards`` 1 where it was just
    reached. Randomness is the seed's alone, though OGBench's own is global.
    """
    if steps < 1:
        raise DFPlannerError(f"steps is {steps}; at least 1 is needed")
    env = make_ogbench(env_id).unwrapped
    size = ogbench_size(env_id)
    assert size is not None
    length, rng = SIZES[size], np.random.default_rng(seed)
    walls = env.maze_map == 1
    free, turning = [tuple(c) for c in np.argwhere(~walls).tolist()], turning_cells(walls)
    routes = {cell: next_cells(walls, cell) for cell in turning}
    unit = env._maze_unit

    def place(cells: list[Any]) -> tuple[Cell, NDArray]:
        cell = cells[rng.integers(len(cells))]
        return cell, np.array(env.ij_to_xy(cell)) + rng.uniform(-1, 1, 2) * unit / 4

    env.reset(seed=seed, options={"task_id": 1})
    seen, done, sought, rewards = [], [], [], []
    episodes = -(-steps // length)
    for _ in range(episodes):
        env.set_xy(place(free)[1])
        cell, goal = place(turning)
        for _ in range(length):
            xy = np.array(env.get_xy())
            aim = np.array(env.ij_to_xy(routes[cell][env.xy_to_ij(xy)])) - xy
            wanted = aim / (np.linalg.norm(aim) + 1e-6) + NOISE * rng.standard_normal(2)
            action = np.clip(wanted, -1, 1)
            env.set_goal(goal_xy=goal)
            *_, info = env.step(action)
            seen.append(xy)
            done.append(action)
            sought.append(goal)
            rewards.append(info["success"])
            if info["success"]:
                cell, goal = place(turning)
        if progress:
            progress(length)
    return Episodes(
        observations=np.array(seen, np.float32),
        actions=np.array(done, np.float32),
        goals=np.array(sought, np.float32),
        rewards=np.array(rewards, np.float32),
        starts=np.arange(episodes) * length,
        meta={"env": env_id, "maze": size, "seed": int(seed), "controller": "next-cell", "stay": False, "dt_s": DT_S},
    )
