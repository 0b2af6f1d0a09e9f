"""``dfplanner collect ENV``: make a maze's data anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from dfplanner.cli.common import Env, File, parse, writable
from dfplanner.types import DFPlannerError


@dataclass(frozen=True)
class Collect:
    """Make a maze's data anew, with the waypoint controller that made D4RL's. The same seed gives the same bytes."""

    env: Positional[Env]
    """maze2d-umaze, -medium, -large, or multi2d-..."""
    steps: int = 1_000_000
    """Environment steps."""
    seed: int = 0
    out: File = ""
    """File to write, or name of the Minari data set; by default data/ENV.hdf5."""
    format: Literal["d4rl", "minari"] = "d4rl"
    """D4RL's HDF5 layout, or a Minari data set."""
    stay: bool = False
    """Segments that brake and stay at their goal; D4RL's data goes on to the next at once."""


def run(args: Sequence[str]) -> None:
    """Collect and say where it is."""
    from dfplanner_envs.collect import collect_to_file
    from dfplanner_envs.mazes import maze_of

    a = parse(Collect, "collect", args)
    if a.steps < 1 or a.seed < 0:
        raise DFPlannerError(
            f"{a.steps} steps and seed {a.seed} came; collect at least 1 step, with a seed of at least 0"
        )
    maze, multi = maze_of(a.env)
    name = f"{'multi2d' if multi else 'maze2d'}-{maze.name}{'-stay' if a.stay else ''}"
    out = a.out or (f"data/{name}.hdf5" if a.format == "d4rl" else f"dfplanner/{name}-v0")
    if a.format == "d4rl":
        writable(out)
    print(f"wrote {collect_to_file(a.env, a.steps, a.seed, out, a.format, a.stay)}")
