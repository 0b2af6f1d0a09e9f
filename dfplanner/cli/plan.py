"""``dfplanner plan``: a plan from a start to a goal, drawn over the maze its model was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dfplanner.checkpoint import Checkpoint
from dfplanner.cli.common import File, Name, parse, point, use_device, writable
from dfplanner.guidance import ReachGoal
from dfplanner.planner import Planner
from dfplanner.runtime import load_planner
from dfplanner.runtime.file import OnnxCheckpoint
from dfplanner.settings import PlannerSettings
from dfplanner.types import DFPlannerError, Plan
from dfplanner_envs.mazes import Maze, in_wall, maze_of, nearest_cell, shortest_path
from dfplanner_envs.ogbench_maze import ogbench_size
from dfplanner_envs.point_maze import point_maze_of


@dataclass(frozen=True)
class PlanOptions:
    """Plan from a start to a goal, and draw the plan over the maze that the model was trained for."""

    checkpoint: Name
    """A bundled model's name (see dfplanner checkpoints), a file, a run's folder, or a hub id; for onnx a file."""
    start: tuple[str, ...]
    """X,Y in metres; the ball is at rest there. A maze's cell (row, column) has its middle at (row-0.2, column-0.2)."""
    goal: tuple[str, ...]
    """X,Y in metres."""
    plot: File = ""
    """A .png of the plan, or a .gif or .mp4 of it being denoised."""
    seed: int = 0
    """Of the noise that the plan is made from."""
    scheme: str = "pyramid"
    """How the noise falls: full-sequence, autoregressive, pyramid, trapezoid, rolling."""
    scale: float = 0.5
    """The pyramid's and trapezoid's uncertainty scale; the window, if it is rolling."""
    steps: int = 8
    """Levels that the observations fall through."""
    horizon: int | None = None
    """Tokens of the plan; by default as many as the model was trained on."""
    how: Literal["token", "guidance", "last"] = "token"
    """How the goal is told: by a token in front, by guidance alone, or by the last token."""
    guidance: float = 1.0
    """Strength of the guidance."""
    runtime: Literal["torch", "onnx"] = "torch"
    """onnx takes a file of dfplanner export, and follows no guidance."""
    device: str = "cpu"
    threads: int = 1


def run(args: Sequence[str]) -> None:
    """Plan, draw, and say where the plan ends."""
    import torch

    from dfplanner.viz import animate_plan, checked_path

    a = parse(PlanOptions, "plan", args)
    start, goal = point(a.start, "start"), point(a.goal, "goal")
    plot = writable(a.plot and checked_path(a.plot, {".png": "a picture", ".gif": "an animation", ".mp4": "a film"}))
    device = use_device(a.device, a.threads)
    settings = PlannerSettings(scheme=a.scheme, scale=a.scale, steps=a.steps, horizon=a.horizon, guidance=a.guidance)
    if a.runtime == "onnx":
        planner = load_planner(a.checkpoint, settings, a.threads)
    else:
        planner = Planner(Checkpoint.load(a.checkpoint, device), settings)
    maze = maze_for(planner.checkpoint, a.checkpoint)
    check_reachable(maze, start, goal)
    plan = planner.plan(
        np.concatenate([start, np.zeros(planner.spec.obs_dim - 2)])[None],
        ReachGoal(goal, a.how),
        generator=torch.Generator(device).manual_seed(a.seed),
        trace=True,
    )
    if plot:
        animate_plan(plot, plan, maze.rows, goal, title=f"{Path(a.checkpoint).stem}, {a.scheme}")
    print(summary(plan, goal) + (f"; wrote {plot}" if plot else ""))


def maze_for(checkpoint: Checkpoint | OnnxCheckpoint, name: str) -> Maze:
    """The maze that a checkpoint was trained for; raises DFPlannerError if it was for none."""
    env = checkpoint.facts.get("config", {}).get("env")
    if env and (ogbench_size(env) or point_maze_of(env)):
        raise DFPlannerError(f"{name} is for {env}; dfplanner bench {env} --policy df --plot FILE.png draws its plans")
    if checkpoint.spec.obs_dim != 4 or not env:
        raise DFPlannerError(f"checkpoint {name} was not trained for a maze; plan with it from Python")
    return maze_of(env)[0]


def check_reachable(maze: Maze, start: NDArray[np.float64], goal: NDArray[np.float64]) -> None:
    """Raises DFPlannerError unless a ball can be at both points, and get from one to the other."""
    for what, xy in (("start", start), ("goal", goal)):
        if in_wall(maze, xy):
            r, c = nearest_cell(maze, xy)
            raise DFPlannerError(
                f"the {what} {xy[0]:g},{xy[1]:g} lies in a wall of {maze.name} or outside; "
                f"the nearest free cell's middle is {r - 0.2:g},{c - 0.2:g}"
            )
    shortest_path(maze, nearest_cell(maze, start), nearest_cell(maze, goal))


def summary(plan: Plan, goal: NDArray[np.float64]) -> str:
    """Where the plan goes, in a line."""
    xy = plan.states[0, :, :2]
    d = np.linalg.norm(xy - goal, axis=1)
    seconds = plan.chunk * plan.dt_s
    near = int(d.argmin())
    return (
        f"{len(xy)} states over {(len(xy) - 1) * seconds:.2f} s, ending at {xy[-1, 0]:.2f},{xy[-1, 1]:.2f}; "
        f"nearest to the goal after {near * seconds:.2f} s, {d[near]:.2f} m away"
    )
