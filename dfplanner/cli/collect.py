"""``dfplanner collect ENV``: make an environment's data anew."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from dfplanner.cli.common import Env, File, parse, writable
from dfplanner.types import DFPlannerError


@dataclass(frozen=True)
class Collect:
    """Make an environment's data anew, with the controller that made it: D4RL's waypoints or OGBench's walker. The same
    seed gives the same bytes."""

    env: Positional[Env]
    """maze2d-umaze, -medium, -large, or multi2d-...; PointMaze_UMaze-v3, -Medium, -Large; pointmaze-medium-navigate-v0,
    -large, -giant; arm-reach."""
    steps: int = 1_000_000
    """Environment steps."""
    seed: int = 0
    out: File = ""
    """File to write, or name of the Minari data set; by default data/ENV.hdf5."""
    format: Literal["d4rl", "minari"] = "d4rl"
    """D4RL's HDF5 layout, or a Minari data set."""
    stay: bool = False
    """Segments that brake and stay at their goal; D4RL's data goes on to the next at once, as OGBench's does."""


def run(args: Sequence[str]) -> None:
    """Collect and say where it is."""
    from dfplanner_envs.collect import collect_to_file

    a = parse(Collect, "collect", args)
    if a.steps < 1 or a.seed < 0:
        raise DFPlannerError(
            f"{a.steps} steps and seed {a.seed} came; collect at least 1 step, with a seed of at least 0"
        )
    out = a.out or default_out(a.env, a.format, a.stay)
    if a.format == "d4rl":
        writable(out)
    print(f"wrote {collect_to_file(a.env, a.steps, a.seed, out, a.format, a.stay)}")


def default_out(env: str, format: str, stay: bool) -> str:
    """``data/maze2d-large-stay.hdf5``, ``dfplanner/pointmaze_umaze-v0``; raises DFPlannerError on an unknown one."""
    from dfplanner_envs.collect import collectable

    known = collectable(env, stay).removeprefix("dfplanner/").lower()
    name = re.sub(r"-v\d+$", "", known) + ("-stay" if stay else "")
    return f"data/{name}.hdf5" if format == "d4rl" else f"dfplanner/{name}-v0"
