"""``dfplanner checkpoints``: which models there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from dfplanner.cli.common import File, parse


@dataclass(frozen=True)
class Checkpoints:
    """List the bundled models: what they were trained for, their size, and what they scored in validation."""

    file: Positional[tuple[File, ...]] = ()
    """Files, run folders or hub ids to list instead."""
    json: bool = False
    """Print JSON, with the whole training configuration."""


def entry(name: str, path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, JSON-ready; raises DFPlannerError if it is none."""
    from dfplanner.checkpoint import Checkpoint, count_parameters

    checkpoint = Checkpoint.load(path)
    facts = checkpoint.facts
    return {
        "name": name,
        "path": str(path),
        "env": facts.get("config", {}).get("env"),
        "parameters": count_parameters(checkpoint.model),
        "bytes": path.stat().st_size,
        "steps": facts.get("step"),
        "score": facts.get("score"),
        "spec": checkpoint.spec.to_dict(),
        "facts": facts,
    }


def run(args: Sequence[str]) -> None:
    """Print the list."""
    from dfplanner.checkpoint import bundled, resolve

    a = parse(Checkpoints, "checkpoints", args)
    paths = {name: resolve(name) for name in a.file} if a.file else bundled()
    entries = [entry(name, path) for name, path in paths.items()]
    if a.json:
        print(json.dumps(entries, indent=1))
    elif not entries:
        print("no checkpoints are bundled with this installation; make one with dfplanner train")
    else:
        print(table(entries))


def table(entries: Sequence[dict[str, Any]]) -> str:
    """The list as plain text."""
    head = ["name", "env", "parameters", "MiB", "steps", "score"]
    rows = [
        [
            e["name"],
            e["env"] or "–",
            f"{e['parameters']:,}",
            f"{e['bytes'] / 2**20:.1f}",
            "–" if e["steps"] is None else f"{e['steps']:,}",
            "–" if e["score"] is None else f"{e['score']:.1f}",
        ]
        for e in entries
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    )
