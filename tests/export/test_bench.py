"""An exported file in the benchmark: the same episodes, planned without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'dfplanner[onnx]'")

from dfplanner.bench.rollout import run_episodes
from dfplanner.bench.rows import make_policy
from dfplanner.checkpoint import Checkpoint
from dfplanner.export import export_onnx
from dfplanner.runtime import OnnxPlanner


@pytest.mark.slow
def test_a_benchmark_takes_an_exported_file(tmp_path: Path) -> None:
    file = export_onnx(Checkpoint.load("maze2d-umaze"), tmp_path / "umaze.onnx")
    policy = make_policy("df", "maze2d-umaze", checkpoint=str(file))
    assert isinstance(policy.planner, OnnxPlanner)  # pyright: ignore[reportAttributeAccessIssue]
    ours = run_episodes(policy, "maze2d-umaze", [10_000, 10_001, 10_002])
    theirs = run_episodes(make_policy("df", "maze2d-umaze"), "maze2d-umaze", [10_000, 10_001, 10_002])
    assert ours.success.all()
    assert np.abs(ours.trajectories[:, :40] - theirs.trajectories[:, :40]).max() < 1e-2  # the same noise, the same way
