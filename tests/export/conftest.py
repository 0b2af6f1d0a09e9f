"""Small models of random weights, one of each kind, and the files they are exported to, once a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="needs the extra dfplanner[onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra dfplanner[onnx]")

from dfplanner.checkpoint import Checkpoint
from dfplanner.data.tokens import Tokenizer
from dfplanner.export import export_onnx
from dfplanner.models.build import ModelConfig, build_model
from dfplanner.models.inverse import InverseDynamics
from dfplanner.planner import Planner
from dfplanner.runtime import OnnxPlanner, load_planner
from dfplanner.schedules import Schedule
from dfplanner.types import TokenSpec

SPEC = TokenSpec(obs_dim=4, act_dim=2, chunk=5, act_code=4, horizon=6, dt_s=0.01)
SMALL: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "ff": 16}
KINDS: dict[str, tuple[ModelConfig, Any, Schedule, Any]] = {
    "causal": (ModelConfig(**SMALL, relative=3), "v", Schedule("cosine", 1000), None),
    "non-causal": (ModelConfig(**SMALL, causal=False), "eps", Schedule("linear", 100), "torchscript"),
    "gru": (ModelConfig("gru", **SMALL), "x0", Schedule("sigmoid", 400), None),
}


def small(kind: str, weight: float | None = None) -> Checkpoint:
    """A checkpoint of random weights (or of one weight everywhere)."""
    config, prediction, schedule, _ = KINDS[kind]
    rng = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inverse = build_model(config, SPEC, schedule.levels), InverseDynamics(SPEC, 8)
        torch.nn.init.normal_(model.get_parameter("head.weight"), std=0.2)
        for p in model.parameters() if weight is not None else ():
            torch.nn.init.constant_(p, weight or 0)
    numbers = rng.normal(1, 2, (60, 4)).astype(np.float32), rng.normal(size=(60, 5, 2)).astype(np.float32)
    facts = {"config": {"env": "maze2d-umaze"}, "step": 7, "score": None}
    model, inverse = model.requires_grad_(False).eval(), inverse.requires_grad_(False)
    return Checkpoint(SPEC, schedule, prediction, config, model, Tokenizer.fit(SPEC, *numbers), inverse, facts)


@dataclass(frozen=True)
class Pair:
    """A checkpoint's planner with torch, and that of the file it was exported to."""

    torch: Planner
    onnx: OnnxPlanner
    file: Path


@pytest.fixture(scope="session", params=list(KINDS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Each kind of model."""
    return request.getfixturevalue("pairs")(request.param)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """kind -> its Pair, exported when it is first asked for."""
    made: dict[str, Pair] = {}

    def make(kind: str) -> Pair:
        if kind not in made:
            checkpoint = small(kind)
            file = export_onnx(checkpoint, tmp_path_factory.mktemp("onnx") / f"{kind}.onnx", KINDS[kind][3])
            made[kind] = Pair(Planner(checkpoint), load_planner(file), file)
        return made[kind]

    return make


@pytest.fixture
def causal(pairs: Any) -> Pair:
    """The causal transformer, by torch's present exporter where there is one."""
    return pairs("causal")


@pytest.fixture
def make_small() -> Any:
    """``small``."""
    return small
