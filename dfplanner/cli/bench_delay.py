"""``dfplanner bench delay``: what plans that arrive late cost, and what the ways to live with it keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from dfplanner.cli.common import Env, File, parse, use_device, writable
from dfplanner.types import DFPlannerError


@dataclass(frozen=True)
class BenchDelay:
    """Run the mazes with plans that arrive a number of environment steps after they were asked for."""

    env: Positional[tuple[Env, ...]] = ("maze2d-umaze",)
    """maze2d-umaze, -medium, -large, or multi2d-..."""
    delays: tuple[int, ...] = (0, 1, 2, 5, 10, 20)
    """Environment steps from asking to arrival."""
    methods: tuple[Literal["synchronous", "naive", "ensemble", "held", "ours"], ...] = (
        "synchronous",
        "naive",
        "ensemble",
        "held",
        "ours",
    )
    """What happens meanwhile."""
    episodes: int = 50
    """Episodes of each, the same for all."""
    replan_every: int = 0
    """Steps between plans, more where plans take longer; 0: half a chunk."""
    action_noise: float = 0.0
    """Standard deviation of Gaussian noise on every action."""
    seed: int = 0
    """Episode i starts from seed 1,000,000 · SEED + i."""
    json: File = ""
    """File for all numbers."""
    plot: File = ""
    """A .png of score and jumps by delay."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 ..."""
    threads: int = 1
    """Threads torch takes."""


def run(args: Sequence[str]) -> None:
    """Run it all, print the tables, and say where things are."""
    a = parse(BenchDelay, "bench delay", args)
    if not (a.env and a.methods):
        raise DFPlannerError("no environment or no method came; name at least one, such as maze2d-umaze")
    from dfplanner.bench.delay import run_delay, write_json
    from dfplanner.bench.delay_plot import plot_delay
    from dfplanner.viz import checked_path

    if a.plot:
        checked_path(a.plot, {".png": "a picture"})
    json, plot = writable(a.json), writable(a.plot)
    device = use_device(a.device, a.threads)
    runs = run_delay(
        a.env,
        a.methods,
        a.delays,
        a.episodes,
        a.seed,
        replan_every=a.replan_every or None,
        action_noise=a.action_noise,
        device=device,
    )
    if json:
        write_json(json, runs)
    if plot:
        plot_delay(plot, runs)
    for path in (json, plot):
        if path:
            print(f"wrote {path}")
