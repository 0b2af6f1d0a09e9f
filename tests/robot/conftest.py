"""A checkpoint for the arm, for tests of who loads one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def arm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has learnt nothing."""
    from dfplanner.checkpoint import Checkpoint
    from dfplanner.data.tokens import Tokenizer
    from dfplanner.models.build import ModelConfig, build_model
    from dfplanner.schedules import Schedule
    from dfplanner.types import TokenSpec

    spec = TokenSpec(obs_dim=17, act_dim=7, chunk=5, act_code=16, horizon=8, dt_s=0.05, pos=tuple(range(3, 10)))
    rng, config = np.random.default_rng(0), ModelConfig(width=16, layers=1, heads=2, ff=16)
    data = rng.normal(size=(60, 17)).astype(np.float32), rng.normal(size=(60, 5, 7)).astype(np.float32)
    model = build_model(config, spec, 1000)
    facts = {"config": {"env": "arm-reach"}, "step": 0, "score": None}
    path = tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors"
    Checkpoint(spec, Schedule(), "v", config, model, Tokenizer.fit(spec, *data), None, facts).save(path)
    return path
