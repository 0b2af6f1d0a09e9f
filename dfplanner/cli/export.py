"""``dfplanner export``: a model as one ONNX file, from which plans are made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from dfplanner.cli.common import File, Name, parse, writable


@dataclass(frozen=True)
class Export:
    """Write a model as one ONNX file that holds all a planner needs; dfplanner.runtime plans with it without torch."""

    checkpoint: Positional[Name]
    """A bundled model's name (see dfplanner checkpoints), a file, a run's folder, or a hub id."""
    onnx: File
    """File to write; one that is there is replaced once the new one has been checked."""
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto"
    """Which of torch's exporters; torchscript for GRUs and for ONNX Runtime before 1.23."""


def run(args: Sequence[str]) -> None:
    """Export and say where it is."""
    a = parse(Export, "export", args)
    path = writable(a.onnx)
    from dfplanner.checkpoint import Checkpoint
    from dfplanner.export import export_onnx
    from dfplanner.types import DFPlannerError

    if path is None or path.suffix != ".onnx":
        raise DFPlannerError(f"{a.onnx!r} came as the file to write; give a name that ends in .onnx")
    written = export_onnx(Checkpoint.load(a.checkpoint), path, None if a.exporter == "auto" else a.exporter)
    print(f"wrote {written} ({written.stat().st_size / 2**20:.1f} MiB)")
