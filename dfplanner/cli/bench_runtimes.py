"""``dfplanner bench runtimes``: a plan's latency with torch, torch compiled and ONNX Runtime, on one thread."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from dataclasses import dataclass

from tyro.conf import Positional

from dfplanner.cli.common import File, Name, parse, writable


@dataclass(frozen=True)
class BenchRuntimes:
    """Time whole plans with torch as it is, torch compiled and ONNX Runtime, in turn, on one thread each."""

    checkpoint: Positional[tuple[Name, ...]] = ("maze2d-umaze",)
    """Models: bundled names, files, run folders or hub ids."""
    batch: tuple[int, ...] = (1, 16)
    """Problems planned at once."""
    plans: int = 100
    """Plans of each runtime that are timed, after two that are not."""
    seed: int = 0
    """Of the problems and the noise."""
    compiled: bool = True
    """Also torch compiled, if there is a compiler."""
    json: File = ""
    """File for all numbers."""


def run(args: Sequence[str]) -> None:
    """Time it all and print the table."""
    a = parse(BenchRuntimes, "bench runtimes", args)
    path = writable(a.json)
    from dfplanner.bench.runtimes import table, time_runtimes, to_dict
    from dfplanner.checkpoint import atomic_write

    timings = time_runtimes(a.checkpoint, a.batch, a.plans, a.seed, compiled=a.compiled)
    print(table(timings))
    if path:
        text = json_format.dumps(to_dict(timings, a.plans, a.seed), indent=1) + "\n"

        def write(part: str) -> None:
            with open(part, "w", encoding="utf-8") as file:
                file.write(text)

        atomic_write(path, write)
        print(f"wrote {path}")
