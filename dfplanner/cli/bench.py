"""``dfplanner bench ENV…``: run policies in environments, ours and others'. ``bench serve`` and so on: elsewhere."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction

from dfplanner.cli.common import Env, File, Name, parse, use_device, writable
from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import MAZES
from dfplanner_envs.wrappers import ARM, is_arm


@dataclass(frozen=True)
class Bench:
    """Run policies in environments: a table for each, JSON, a picture of rollouts, an animation of a plan.

    Others measure something else: dfplanner bench serve (a server), runtimes (their latencies), delay (what plans that
    arrive late cost), ros (the graph around an arm); each has its --help.
    """

    env: Positional[tuple[Env, ...]] = tuple(f"maze2d-{name}" for name in MAZES)
    """maze2d-umaze, -medium, -large, or multi2d-... with goals drawn at random; PointMaze_UMaze-v3, -Medium, -Large;
    pointmaze-medium-navigate-v0, -large, -giant; arm-reach, with and without disturbed readings."""
    policy: Annotated[tuple[tuple[Name, ...], ...], UseAppendAction] = ()
    """Rows of the table, such as df, df-guided, data-controller, random; by default those that can be had."""
    actions: Literal["diffused", "inverse", "pd"] = "diffused"
    """How a plan becomes actions: its own, a learned inverse dynamics', or the data's PD gains'."""
    episodes: int = 100
    """Episodes of every policy in every environment, the same for all (OGBench's five tasks take turns); without
    --policy slow rows run fewer."""
    action_noise: float = 0.0
    """Standard deviation of Gaussian noise on every action; actions lie in [-1, 1], and the noisy ones are clipped."""
    checkpoint: Name = ""
    """A model's name, file (.onnx: run by ONNX Runtime) or run folder; planners take it instead of the bundled ones."""
    seed: int = 0
    """Episode i starts from seed 1,000,000 · SEED + i."""
    json: File = ""
    """File for all numbers."""
    plot: File = ""
    """A .png of plans and rollouts."""
    animation: File = ""
    """A .gif and an .mp4 of a plan being denoised; by default beside --plot, if a policy plans so."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 ..."""
    threads: int = 1
    """Threads torch takes."""


def run(args: Sequence[str]) -> None:
    """Run it all, and say where things are."""
    if args and args[0] in ("serve", "runtimes", "delay", "ros"):
        importlib.import_module(f"dfplanner.cli.bench_{args[0]}").run(args[1:])
        return
    a = parse(Bench, "bench", args)
    if not a.env:
        raise DFPlannerError("no environment came; name at least one, such as maze2d-umaze")
    from dfplanner.bench.arm import planner_policy, run_arm
    from dfplanner.bench.arm_film import film_arm
    from dfplanner.bench.arm_plot import plot_arm
    from dfplanner.bench.report import write_json
    from dfplanner.bench.run import run_bench
    from dfplanner.viz import checked_path

    if a.plot:
        checked_path(a.plot, {".png": "a picture"})
    if a.animation:
        checked_path(a.animation, {".gif": "an animation", ".mp4": "a film"})
    json, plot = writable(a.json), writable(a.plot)
    animation = writable(a.animation) or (plot and plot.with_suffix(".gif"))
    device = use_device(a.device, a.threads)
    policies = [name for names in a.policy for name in names]
    mazes, arm = [env for env in a.env if not is_arm(env)], any(map(is_arm, a.env))
    checkpoint, runs = a.checkpoint or None, []
    if arm and a.action_noise:
        raise DFPlannerError(f"{ARM} has disturbances of its own, which are all run; leave --action-noise to the mazes")
    if mazes:
        options = {"checkpoint": checkpoint, "animation_path": animation, "action_noise": a.action_noise}
        runs = run_bench(mazes, policies, a.actions, a.episodes, a.seed, json, plot, device, **options)
    if arm:
        rows, rollouts = run_arm(policies, a.episodes, a.seed, checkpoint=checkpoint, device=device)
        if json:
            write_json(json, [*runs, *rows])
        if plot and not mazes:
            plot_arm(plot, rollouts)
        if animation and not mazes:
            film_arm([animation.with_suffix(s) for s in (".gif", ".mp4")], planner_policy(checkpoint, device))
    written = [json, plot, *([animation.with_suffix(s) for s in (".gif", ".mp4")] if animation else [])]
    for path in written:
        if path and path.is_file():
            print(f"wrote {path}")
