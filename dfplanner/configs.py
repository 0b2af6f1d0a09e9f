"""The runs that made the bundled checkpoints, by name."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from dfplanner.models.build import ModelConfig
from dfplanner.train import TrainConfig
from dfplanner.types import DFPlannerError

BASELINE_STEPS = 500
"""The baselines' training so far: short, so their rows are told as what they are."""

_MAZES = {
    "maze2d-umaze": TrainConfig("maze2d-umaze", "maze2d-umaze", chunk=10, horizon=24, steps=7000, data_steps=1_000_000),
    "maze2d-medium": TrainConfig(
        "maze2d-medium", "maze2d-medium", chunk=15, horizon=24, steps=16000, data_steps=2_000_000
    ),
    "maze2d-large": TrainConfig(
        "maze2d-large", "maze2d-large", chunk=20, horizon=28, steps=26000, data_steps=4_000_000, goal_dropout=0.15
    ),
}


def _variants(base: TrainConfig) -> dict[str, TrainConfig]:
    name, short = base.name, replace(base, steps=BASELINE_STEPS, data_steps=1_000_000)
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


def _ogbench(size: str, steps: int, relative: int = 0, **more: Any) -> TrainConfig:
    """Short windows: what is learnt is the way from here to the goal, and later tokens read it off the earlier ones."""
    name = f"pointmaze-{size}-navigate-v0"
    net = ModelConfig(period=64.0, relative=relative)  # its cells are four units wide
    base = TrainConfig(name, name, chunk=20, horizon=6, steps=steps, stay=False, hindsight=0.2, goal_dropout=0.1)
    return replace(base, model=net, batch=256, **more)


def _point_maze(title: str, steps: int) -> TrainConfig:
    base = _MAZES[f"maze2d-{title.lower()}"]
    name = f"PointMaze_{title}-v3"
    return replace(base, name=name, env=name, steps=steps, init=base.name, flat=0.3, data_steps=2_000_000)


_ARM = TrainConfig(
    "arm-reach",
    "arm-reach",
    chunk=5,
    horizon=10,
    steps=14000,
    act_code=16,
    data_steps=1_000_000,
    goal_dropout=0.1,
    # Rest nearly at the goal, where an episode began, must be no rarer than rest at the goal.
    after_arrival=5,
    at_start=0.3,
    model=ModelConfig(period=6.4, octaves=4, relative=7),
)

_FOREIGN = [
    _ARM,
    _ogbench("medium", 3500),
    _ogbench("large", 5000),
    # Goals anywhere ahead by all the data: some that lie behind the wall beside a start are in no episode.
    _ogbench("giant", 12000, relative=5, hindsight=0.5, shortest=0.6),
    *(_point_maze(title, steps) for title, steps in (("UMaze", 1500), ("Medium", 2500), ("Large", 4000))),
]

CONFIGS: dict[str, TrainConfig] = {
    **{name: c for base in _MAZES.values() for name, c in _variants(base).items()},
    **{c.name: c for c in _FOREIGN},
}


def get_config(name: str) -> TrainConfig:
    """A named configuration; an unknown name lists the known ones."""
    if name not in CONFIGS:
        raise DFPlannerError(
            f"unknown training configuration {name!r}; known: {', '.join(CONFIGS)}; or give a JSON file"
        )
    return CONFIGS[name]


def load_config(name_or_file: str | Path) -> TrainConfig:
    """A configuration by name, or from a JSON file with TrainConfig's fields; raises DFPlannerError."""
    path = Path(name_or_file)
    if path.suffix != ".json" and not path.is_file():
        return get_config(str(name_or_file))
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise DFPlannerError(f"{path} cannot be read as JSON ({e}); give a training configuration") from e
    return _built(TrainConfig, given, str(path))


def _built(kind: type[Any], given: Any, where: str) -> Any:
    """A dataclass from JSON, its fields' names and types checked."""
    hints = get_type_hints(kind)
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if not isinstance(given, dict) or given.keys() - hints.keys() or set(needed) - given.keys():
        found = sorted(given) if isinstance(given, dict) else type(given).__name__
        raise DFPlannerError(
            f"{where} holds {found}; expected an object with {', '.join(needed)} and any of {', '.join(hints)}"
        )
    values = {}
    for name, value in given.items():
        hint: Any = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            values[name] = _built(hint, value, f"{name} in {where}")
            continue
        choices = get_args(hint)
        fits = value in choices if choices else type(value) is hint or (hint is float and type(value) is int)
        if not fits:
            wanted = f"one of {', '.join(choices)}" if choices else f"a {hint.__name__}"
            raise DFPlannerError(f"{name} in {where} is {value!r}; expected {wanted}")
        values[name] = value
    return kind(**values)
