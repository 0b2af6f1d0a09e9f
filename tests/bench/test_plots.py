"""The benchmark's picture has a panel for every run, under its environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfplanner.bench.baselines import DataController, RandomPolicy
from dfplanner.bench.plots import panels_of, plot_rollouts
from dfplanner.bench.report import make_run
from dfplanner.bench.rollout import run_episodes
from dfplanner.types import DFPlannerError
from dfplanner.viz import GOAL


def test_every_run_has_a_panel(tmp_path: Path) -> None:
    results = []
    for env_id in ("multi2d-umaze", "maze2d-large"):
        for name, policy in (("data-controller", DataController(env_id)), ("random", RandomPolicy())):
            result = run_episodes(policy, env_id, [0, 1])
            if name == "random":
                result = replace(result, first_plan=result.trajectories[:, :50:10])
            run = make_run(result, None, policy=name, actions="pd", seed=0, nfe_per_plan=0)
            results.append((run, result))
    panels = panels_of(results)
    assert [p.group for p in panels] == ["multi2d-umaze"] * 2 + ["maze2d-large"] * 2
    assert panels[0].title == "data-controller (pd)" and panels[0].plans is None and panels[1].plans is not None

    def stars(count: int) -> int:
        """Pixels as red as a goal's star."""
        plot_rollouts(tmp_path / "all.png", panels[:count], columns=1)
        pixels = np.asarray(Image.open(tmp_path / "all.png").convert("RGB")).astype(int)
        red = np.array([int(GOAL[i : i + 2], 16) for i in (1, 3, 5)])
        return int((np.abs(pixels - red).max(axis=-1) < 5).sum())

    seen = [stars(n) for n in (1, 2, 4)]
    assert 0 < seen[0] < seen[1] < seen[2]


def test_bad_requests_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(DFPlannerError, match="no rollouts"):
        plot_rollouts(tmp_path / "a.png", [])
    with pytest.raises(DFPlannerError, match=r"ends in \.png"):
        plot_rollouts(tmp_path / "a.gif", [])
