"""The runs that made the bundled checkpoints, by name."""

from __future__ import annotations

from dataclasses import replace

from dfplanner.models.build import ModelConfig
from dfplanner.train import TrainConfig
from dfplanner.types import DFPlannerError

_MAZES = {
    "maze2d-umaze": TrainConfig("maze2d-umaze", "maze2d-umaze", chunk=10, horizon=24, steps=3500, data_steps=1_000_000),
    "maze2d-medium": TrainConfig(
        "maze2d-medium", "maze2d-medium", chunk=15, horizon=24, steps=9000, data_steps=2_000_000
    ),
    "maze2d-large": TrainConfig(
        "maze2d-large", "maze2d-large", chunk=20, horizon=28, steps=11000, data_steps=4_000_000
    ),
}


def _variants(base: TrainConfig) -> dict[str, TrainConfig]:
    name, short = base.name, replace(base, steps=base.steps // 3)
    return {
        name: base,
        f"{name}-d4rl": replace(short, name=f"{name}-d4rl", stay=False),
        f"{name}-teacher-forcing": replace(short, name=f"{name}-teacher-forcing", recipe="teacher-forcing"),
        f"{name}-full-sequence": replace(short, name=f"{name}-full-sequence", recipe="full-sequence"),
        f"{name}-full-sequence-noncausal": replace(
            short,
            name=f"{name}-full-sequence-noncausal",
            recipe="full-sequence",
            model=ModelConfig(causal=False),
        ),
        f"{name}-gru": replace(short, name=f"{name}-gru", model=ModelConfig(kind="gru", width=256, layers=1)),
    }


CONFIGS: dict[str, TrainConfig] = {name: c for base in _MAZES.values() for name, c in _variants(base).items()}


def get_config(name: str) -> TrainConfig:
    """A named configuration; an unknown name lists the known ones."""
    if name not in CONFIGS:
        raise DFPlannerError(
            f"unknown training configuration {name!r}; known: {', '.join(CONFIGS)}; or give a JSON file"
        )
    return CONFIGS[name]
