"""The data, made anew: D4RL's waypoint controller on MuJoCo, as D4RL has it or in segments that stay.

Source of the recipe: Fu et al. 2020, "D4RL" (arXiv:2004.07219), Maze2D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dfplanner.data.episodes import Episodes
from dfplanner.types import DFPlannerError
from dfplanner_envs.controller import Floats, WaypointController
from dfplanner_envs.mazes import CELL_OFFSET, DT_S, TITLES, Maze, draw_task, maze_of, reward
from dfplanner_envs.vector import VectorMaze2D

Progress = Callable[[int], Any]
TAIL = 120
"""Steps stored after arrival. The ball then rests, within 1e-5 m, m/s and action of the goal, 0 and 0."""


def collect(
    env: str | Maze,
    steps: int,
    seed: int,
    stay: bool = False,
    tail: int = TAIL,
    lanes: int = 100,
    threads: int = 0,
    progress: Progress | None = None,
    *,
    spread: float | None = None,
) -> Episodes:
    """Episodes of the waypoint controller in ``env`` (a name such as ``maze2d-large``, or a maze).

    As D4RL has it (``stay=False``): exactly ``steps`` steps in at most ``lanes`` continuous trajectories;
    on arrival, or when the task's horizon has passed, the next goal is drawn and the ball goes on at once.
    Rewards are the task's: for the fixed goal with Maze2D, for the goal pursued with Multi2D.

    ``stay=True``: episodes from a random cell to a random goal, drawn as Multi2D's resets draw them, that
    then brake and hold the goal for ``tail`` steps; whole episodes in the order they were begun, as few as
    hold ``steps`` steps. Rewards are for the episode's own goal. With ``tail >= TAIL`` the last step is at
    rest, and repeating it any number of times is what the controller would do.

    ``spread``: starts and goals lie so many metres round their cell's middle, at most, on each axis, instead of D4RL's
    0.1 round the cell's numbers.

    The same arguments give the same bytes, whatever the number of ``threads`` (0: as many as pay).
    ``progress`` is told the number of new steps. Raises DFPlannerError for an unknown name or a count below
    1.
    """
    maze, multi = maze_of(env) if isinstance(env, str) else (env, False)
    for name, value in (("steps", steps), ("lanes", lanes), ("tail", tail)):
        if value < 1:
            raise DFPlannerError(f"{name} is {value}; at least 1 is needed")
    lanes = max(1, min(lanes, steps // maze.horizon))
    meta: dict[str, Any] = {
        "env": f"{'multi2d' if multi else 'maze2d'}-{maze.name}",
        "maze": maze.name,
        "seed": int(seed),
        "controller": "waypoint-pd",
        "stay": stay,
        "dt_s": DT_S,
        "lanes": lanes,
    }
    rng = np.random.default_rng(seed)
    simulation = VectorMaze2D(maze, lanes, nthread=threads)
    if spread is not None:
        meta["spread"] = spread
    if stay:
        meta |= {"tail": tail, "reward_goal": "pursued"}
        return _staying(simulation, maze, steps, tail, rng, meta, progress, spread)
    return _continuous(simulation, maze, multi, steps, rng, meta | {"horizon": maze.horizon}, progress, spread)


def _tasks(maze: Maze, n: int, rng: np.random.Generator, spread: float | None) -> tuple[Floats, Floats]:
    """n states (n, 4) and goals (n, 2), as Multi2D's resets draw them, or ``spread`` round their cells' middles."""
    drawn = [draw_task(maze, True, rng) for _ in range(n)]
    states, goals = np.array([[*p, *v] for p, v, _ in drawn]), np.array([g for *_, g in drawn])
    if spread is not None:
        states[:, :2], goals = _goals(maze, n, rng, spread), _goals(maze, n, rng, spread)
    return states, goals


def _goals(maze: Maze, n: int, rng: np.random.Generator, spread: float | None) -> Floats:
    cells = np.array(maze.free_cells, float)[rng.integers(len(maze.free_cells), size=n)]
    if spread is not None:
        return cells - CELL_OFFSET + rng.uniform(-spread, spread, size=(n, 2))
    return cells + rng.uniform(-0.1, 0.1, size=(n, 2))


def _continuous(
    simulation: VectorMaze2D,
    maze: Maze,
    multi: bool,
    steps: int,
    rng: np.random.Generator,
    meta: dict[str, Any],
    progress: Progress | None,
    spread: float | None,
) -> Episodes:
    n = meta["lanes"]
    length = steps // n + (np.arange(n) < steps % n)
    most = int(length.max())
    seen, done, sought = (np.zeros((n, most, k), np.float32) for k in (4, 2, 2))
    obs, goals = _tasks(maze, n, rng, spread)
    controller = WaypointController(maze, n, rng)
    controller.set_goals(np.arange(n), obs[:, :2], goals)
    simulation.set_state(obs[:, :2], obs[:, 2:])
    age = np.zeros(n, int)
    for t in range(most):
        actions = controller.act(obs)
        seen[:, t], done[:, t], sought[:, t] = obs, actions, controller.goals
        obs = simulation.step_physics(actions)
        again = np.flatnonzero(controller.arrived | (age >= maze.horizon))
        age += 1
        if len(again):
            controller.set_goals(again, obs[again, :2], _goals(maze, len(again), rng, spread))
            age[again] = 0
        if progress:
            progress(int((length > t).sum()))
    kept = np.arange(most) < length[:, None]
    rewarded = sought if multi else np.array(maze.goal, np.float32)
    return Episodes(
        observations=seen[kept],
        actions=done[kept],
        goals=sought[kept],
        rewards=reward(seen[..., :2], rewarded)[kept].astype(np.float32),
        starts=np.cumsum(length) - length,
        meta=meta | {"reward_goal": "pursued" if multi else list(maze.goal)},
    )


class _Run(NamedTuple):
    """An episode under way: its lane, the tick it began and ended at, and the tick of arrival (-1: never)."""

    lane: int
    begin: int
    end: int
    arrival: int


def _staying(
    simulation: VectorMaze2D,
    maze: Maze,
    steps: int,
    tail: int,
    rng: np.random.Generator,
    meta: dict[str, Any],
    progress: Progress | None,
    spread: float | None,
) -> Episodes:
    n = meta["lanes"]
    runs: list[_Run | None] = [None] * n
    owner, begin, arrival = np.arange(n), np.zeros(n, int), np.full(n, -1)
    obs, goals = _tasks(maze, n, rng, spread)
    controller = WaypointController(maze, n, rng)
    controller.set_goals(np.arange(n), obs[:, :2], goals)
    simulation.set_state(obs[:, :2], obs[:, 2:])
    log: list[np.ndarray] = []
    # Kept is a prefix of the episodes in the order they were begun: those that end first are the short ones.
    whole = held = 0
    while held < steps:
        t = len(log)
        actions = controller.act(obs)
        log.append(np.concatenate([obs, actions, controller.goals], axis=1).astype(np.float32))
        obs = simulation.step_physics(actions)
        arrival = np.where(controller.arrived & (arrival < 0), t, arrival)
        over = np.where(arrival >= 0, t - arrival >= tail, t - begin >= 2 * maze.horizon)
        ended = np.flatnonzero(over)
        if not len(ended):
            continue
        for lane in ended:
            runs[owner[lane]] = _Run(int(lane), int(begin[lane]), t + 1, int(arrival[lane]))
        owner[ended] = len(runs) + np.arange(len(ended))
        runs += [None] * len(ended)
        obs[ended], goals = _tasks(maze, len(ended), rng, spread)
        controller.set_goals(ended, obs[ended, :2], goals)
        simulation.set_state(obs[:, :2], obs[:, 2:])
        begin[ended], arrival[ended] = t + 1, -1
        while held < steps and (run := runs[whole]) is not None:
            whole, held = whole + 1, held + run.end - run.begin
            if progress:
                progress(run.end - run.begin)
    return _cut(np.stack(log), [run for run in runs[:whole] if run], meta)


def _cut(log: np.ndarray, runs: list[_Run], meta: dict[str, Any]) -> Episodes:
    """The runs, one after another, out of the log (ticks, lanes, 8) of observation, action and goal."""
    rows = np.concatenate([log[run.begin : run.end, run.lane] for run in runs])
    length = np.array([run.end - run.begin for run in runs])
    return Episodes(
        observations=rows[:, :4],
        actions=rows[:, 4:6],
        goals=rows[:, 6:],
        rewards=reward(rows[:, :2], rows[:, 6:]).astype(np.float32),
        starts=np.cumsum(length) - length,
        meta=meta,
        arrival=np.array([run.arrival - run.begin if run.arrival >= 0 else -1 for run in runs]),
    )


def collect_for(
    env_id: str, steps: int, seed: int, *, stay: bool = False, progress: Progress | None = None
) -> Episodes:
    """An environment's data, whichever family it is of: Maze2D, Multi2D, PointMaze, OGBench's pointmaze or the arm.

    ``stay`` says nothing of OGBench, whose walker never rests, and of the arm, which always does. Raises
    DFPlannerError on an unknown id.
    """
    from dfplanner_envs.ogbench_maze import collect_ogbench, ogbench_size
    from dfplanner_envs.point_maze import collect_point_maze, point_maze_of
    from dfplanner_envs.wrappers import is_arm

    if is_arm(env_id):
        from dfplanner_envs.arm.collect import collect_arm

        return collect_arm(steps, seed, progress)
    if ogbench_size(env_id):
        return collect_ogbench(env_id, steps, seed, progress)
    if point_maze_of(env_id):
        return collect_point_maze(env_id, steps, seed, stay, progress)
    return collect(env_id, steps, seed, stay=stay, progress=progress)


def in_model_frame(env_id: str, episodes: Episodes) -> Episodes:
    """The episodes as models for ``env_id`` see them: PointMaze's are turned into Maze2D's frame, others stay.

    ``meta["env"]`` says whose the episodes are. Raises DFPlannerError on another maze's.
    """
    from dfplanner_envs.point_maze import point_maze_of, to_maze2d, turn_to_maze2d

    source = str(episodes.meta.get("env", ""))
    theirs = point_maze_of(source.replace("Dense", ""))
    try:
        wanted = point_maze_of(env_id) or maze_of(env_id)[0]
    except DFPlannerError:
        return episodes  # nothing that we know: its models may see what they like
    if theirs is None:
        return episodes
    if theirs != wanted:
        raise DFPlannerError(f"the data is {source}'s, but the model is for {env_id}; give data of the same maze")
    meta = {**episodes.meta, "env": f"maze2d-{theirs.name}", "maze": theirs.name}
    return _turned(episodes, partial(to_maze2d, theirs), turn_to_maze2d, meta)


def in_own_frame(env_id: str, episodes: Episodes) -> Episodes:
    """The inverse: episodes in Maze2D's frame as PointMaze has them, if ``env_id`` is one; others stay."""
    from dfplanner_envs.point_maze import from_maze2d, point_maze_of, turn_from_maze2d

    maze = point_maze_of(env_id)
    if maze is None:
        return episodes
    meta = {**episodes.meta, "env": f"PointMaze_{TITLES[maze.name]}-v3"}
    return _turned(episodes, partial(from_maze2d, maze), turn_from_maze2d, meta)


def _turned(
    e: Episodes, move: Callable[[Any], np.ndarray], turn: Callable[[Any], np.ndarray], meta: dict[str, Any]
) -> Episodes:
    if e.observations.shape[1] != 4 or e.actions.shape[1] != 2 or e.goals.shape[1] != 2:
        raise DFPlannerError(
            f"PointMaze has 4 numbers in an observation, 2 in an action and a goal; the data has "
            f"{e.observations.shape[1]}, {e.actions.shape[1]} and {e.goals.shape[1]}: is it another environment's?"
        )
    seen = np.concatenate([move(e.observations[:, :2]), turn(e.observations[:, 2:])], axis=1)
    return replace(e, observations=seen, actions=turn(e.actions), goals=move(e.goals), meta=meta)  # pyright: ignore


def collect_to_file(
    env: str,
    steps: int,
    seed: int,
    out: str | Path,
    format: str = "d4rl",
    stay: bool = False,
    progress: bool = True,
) -> str:
    """``collect_for`` into a file: D4RL's HDF5 layout at the path ``out``, or the Minari data set named ``out``.

    Both hold the environment's own frame. Returns where it is. Raises DFPlannerError for an unknown environment or
    format, and where a package is absent, before anything is made.
    """
    from tqdm import tqdm

    from dfplanner.data import write_hdf5, write_minari
    from dfplanner.data.minari import new_minari_path

    if format not in ("d4rl", "minari"):
        raise DFPlannerError(f"no format is called {format!r}; known ones are d4rl, minari")
    name = collectable(env, stay, registered=format == "minari")
    if format == "minari":
        new_minari_path(str(out))  # so that a taken name is known before the work, not after
    with tqdm(total=steps, unit="step", unit_scale=True, desc=f"collect {env}", disable=not progress) as bar:
        episodes = in_own_frame(env, collect_for(env, steps, seed, stay=stay, progress=bar.update))
    if format == "d4rl":
        write_hdf5(out, episodes)
        return str(out)
    return write_minari(str(out), episodes, name)


def collectable(env: str, stay: bool = False, registered: bool = False) -> str:
    """The id under which Gymnasium knows an environment that ``collect_for`` does; ``registered``: import its package.

    Raises DFPlannerError on an unknown one, or where the package is absent, or on ``stay`` for what never rests.
    """
    from dfplanner_envs.ogbench_maze import make_ogbench, ogbench_size
    from dfplanner_envs.point_maze import make_point_maze, point_maze_of
    from dfplanner_envs.wrappers import ARM_ID, is_arm, known_ids

    if is_arm(env):
        return ARM_ID
    if size := ogbench_size(env):
        if stay:
            raise DFPlannerError(f"the walker that makes {env}'s data never rests; leave out stay")
        make_ogbench(env)
        return f"pointmaze-{size}-v0"
    if maze := point_maze_of(env):
        if registered:
            make_point_maze(env)
        return f"PointMaze_{TITLES[maze.name]}-v3"
    try:
        maze, multi = maze_of(env)
    except DFPlannerError as e:
        raise DFPlannerError(f"no environment is called {env!r}; known ones are {', '.join(known_ids())}") from e
    return f"dfplanner/{'Multi2D' if multi else 'Maze2D'}-{TITLES[maze.name]}-v0"
