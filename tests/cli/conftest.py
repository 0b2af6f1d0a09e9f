"""A folder with models and data for the command line: some as they should be, others broken in every way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from dfplanner.checkpoint import Checkpoint
from dfplanner.data.tokens import Tokenizer
from dfplanner.models.build import ModelConfig, build_model
from dfplanner.schedules import Schedule
from dfplanner.types import TokenSpec

TINY = {
    "name": "tiny",
    "env": "maze2d-umaze",
    "chunk": 10,
    "horizon": 8,
    "steps": 400,
    "act_code": 6,
    "batch": 16,
    "save_every": 50,
    "eval_every": 0,
    "stay": False,
    "model": {"width": 32, "layers": 1, "heads": 2, "ff": 32},
}


def untrained(path: Path, weight: float | None = None, env: str | None = "maze2d-umaze") -> Path:
    """A checkpoint of random weights, or of one weight everywhere, that says it is for ``env``."""
    spec, rng = TokenSpec(obs_dim=4, act_dim=2, chunk=10, act_code=4, horizon=6, dt_s=0.01), np.random.default_rng(0)
    config = ModelConfig(width=16, layers=1, heads=2, ff=16)
    model = build_model(config, spec, 1000)
    if weight is not None:
        for p in model.parameters():
            torch.nn.init.constant_(p, weight)
    numbers = rng.normal(size=(60, 4)).astype(np.float32), rng.normal(size=(60, 10, 2)).astype(np.float32)
    facts = {"config": {"env": env}, "step": 0, "score": None}
    Checkpoint(spec, Schedule(), "v", config, model, Tokenizer.fit(spec, *numbers), None, facts).save(path)
    return path


def data(path: Path, **arrays: Any) -> Path:
    """A file in D4RL's layout of 300 steps, with other arrays as given (None: left out)."""
    n, rng = 300, np.random.default_rng(0)
    whole: dict[str, Any] = {"observations": rng.random((n, 4)), "actions": rng.random((n, 2)), "rewards": np.zeros(n)}
    with h5py.File(path, "w") as file:
        for name, array in (whole | {"terminals": np.zeros(n, bool)} | arrays).items():
            if array is not None:
                file[name] = array
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that can be wrong."""
    monkeypatch.chdir(tmp_path)
    untrained(tmp_path / "ok.safetensors")
    untrained(tmp_path / "nan.safetensors", weight=float("nan"))
    untrained(tmp_path / "arm.safetensors", env=None)
    untrained(tmp_path / "point.safetensors", env="PointMaze_UMaze-v3")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "ok.safetensors").read_bytes()[:-20])
    (tmp_path / "file").write_text("hello")
    (tmp_path / "text.hdf5").write_text("hello")
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    (tmp_path / "typo.json").write_text(json.dumps(TINY | {"stepz": 3}))
    data(tmp_path / "nan.hdf5", observations=np.full((300, 4), np.nan))
    data(tmp_path / "flat.hdf5", observations=np.zeros(300))
    data(tmp_path / "short.hdf5", actions=np.zeros((10, 2)))
    data(tmp_path / "lacking.hdf5", actions=None)
    data(tmp_path / "wide.hdf5", observations=np.zeros((300, 7)))
    data(tmp_path / "ok.hdf5")
    return tmp_path
