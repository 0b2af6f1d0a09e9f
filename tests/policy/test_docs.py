"""The page for gym users runs as it stands, block after block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dfplanner.checkpoint import bundled

PAGE = Path(__file__).parents[2] / "docs" / "gym.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
FOREIGN = {"PointMaze_": "gymnasium_robotics", "pointmaze-": "ogbench"}


@pytest.fixture
def sb3() -> None:
    pytest.importorskip("stable_baselines3", reason="needs stable-baselines3")


def run(code: str, space: dict[str, Any]) -> dict[str, Any]:
    exec(compile(code, PAGE.name, "exec"), space)
    return space


@pytest.mark.slow
def test_the_pages_own_environments(sb3: None) -> None:
    space: dict[str, Any] = {}
    ours = [code for code in BLOCKS if not any(word in code for word in FOREIGN)]
    assert len(ours) >= 6
    for code in ours:
        run(code, space)
    assert space["total"] > 0  # the first rollout arrives


@pytest.mark.parametrize("word", FOREIGN)
def test_the_pages_environments_of_others(word: str, sb3: None) -> None:
    pytest.importorskip(FOREIGN[word], reason=f"needs {FOREIGN[word]}")
    (code,) = [code for code in BLOCKS if word in code]
    for name in re.findall(rf'"({word}[^"]+)"', code):
        if name not in bundled():
            pytest.skip(f"the weights {name} are not bundled")
    imports = re.findall(r"^(?:from|import) .*", "\n".join(BLOCKS), re.M)
    space = run("\n".join([*imports, code]), {})
    assert space.get("mean", 1) > 0 and space.get("info", {}).get("success", 1) == 1
