"""The models that ship: a whole plan with ONNX Runtime is torch's, within 1e-4 of a standard deviation.

Not every one: where a plan hangs by a hair, sampling makes much of little, and single precision rounds. Torch with its
network computed in double precision is then as far away from torch as ONNX Runtime is. A share is held to it, and every
step of the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dfplanner.checkpoint import Checkpoint, bundled
from dfplanner.export import export_onnx
from dfplanner.guidance import ReachGoal
from dfplanner.planner import Planner
from dfplanner.runtime import load_planner
from dfplanner.settings import PlannerSettings
from dfplanner.testing import Recorder
from dfplanner.types import Plan
from dfplanner_envs.mazes import MAZES

SETTINGS = {
    "full sequence": PlannerSettings(action_chunks=2),
    "policy": PlannerSettings(horizon=4, action_steps=3, action_chunks=2),
    "stochastic": PlannerSettings(eta=1.0, steps=4, action_chunks=2),
    "pyramid": PlannerSettings(scheme="pyramid", scale=0.5, horizon=12, steps=8, action_chunks=2),
    "token by token": PlannerSettings(scheme="autoregressive", horizon=8, steps=4, action_chunks=2),
}


@pytest.fixture(scope="module", params=["umaze", "medium", "large"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Planner, Any]:
    """A maze, its planner with torch, and with ONNX Runtime."""
    name = f"maze2d-{request.param}"
    if name not in bundled():
        pytest.skip(f"{name} is not bundled with this checkout")
    checkpoint, file = Checkpoint.load(name), Path(tmp_path_factory.mktemp("bundled")) / "model.onnx"
    return request.param, Planner(checkpoint), load_planner(export_onnx(checkpoint, file, "torchscript"))


def apart(both: tuple[str, Planner, Any], s: PlannerSettings, batch: int) -> NDArray[np.float32]:
    """How far the plans of a batch are apart: with and without a goal, anew and continued (4, B).

    States in standard deviations; actions as they are, in -1..1.
    """
    maze, *planners = both
    rng, std = np.random.default_rng(batch), planners[0].tokenizer.obs_std.numpy()
    cells = np.argwhere(~MAZES[maze].walls).astype(np.float32)
    places = cells[rng.integers(len(cells), size=(2, batch))] + rng.uniform(-0.1, 0.1, (2, batch, 2))
    seen, found = np.concatenate([places[0], np.zeros((batch, 2))], 1), []
    for objective in (ReachGoal(places[1]), None):
        old: Plan | None = None
        for committed in (0, 12):
            plans = [
                p.plan(
                    seen,
                    objective,
                    old,
                    committed,
                    torch.Generator().manual_seed(0),
                    elapsed=3 if old else 0,
                    settings=s,
                )
                for p in planners
            ]
            a, b = old, _ = plans
            assert (a.levels == b.levels).all() and planners[0].calls == planners[1].calls
            states, actions = np.abs(a.states - b.states) / std, np.abs(a.actions - b.actions)
            found.append(np.maximum(states.max((1, 2)), actions.max((1, 2))))
    return np.array(found)


@pytest.mark.parametrize("settings", list(SETTINGS))
def test_a_whole_plan_is_torchs(both: tuple[str, Planner, Any], settings: str) -> None:
    off = np.concatenate([apart(both, SETTINGS[settings], batch).ravel() for batch in (1, 3, 17)])
    assert np.median(off) <= 3e-5
    assert np.mean(off <= 1e-4) >= (0.8 if settings == "token by token" else 0.95)


def test_at_every_step_of_a_plan_the_network_is_torchs(both: tuple[str, Planner, Any]) -> None:
    maze, planner, light = both
    recorder = Recorder(planner.checkpoint.model)  # pyright: ignore[reportArgumentType]
    planner.checkpoint.model = recorder
    try:
        apart(both, SETTINGS["token by token"], 3)
    finally:
        planner.checkpoint.model = recorder.model  # pyright: ignore[reportAttributeAccessIssue]
    assert len(recorder.calls) > 100, maze
    for x, levels in recorder.calls:
        with torch.no_grad():
            expected = recorder.model(x, levels).numpy()
        np.testing.assert_allclose(light.checkpoint.model(x.numpy(), levels.numpy()), expected, atol=1e-4)
