"""``dfplanner bench runtimes``: what it times is the same plan; what it skips it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfplanner.bench import runtimes
from dfplanner.cli import main


def test_every_runtime_is_timed_on_the_same_plans(
    make_small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "compiler", lambda: "there is no C++ compiler")
    make_small("gru").save(tmp_path / "a.safetensors")
    out = tmp_path / "out" / "t.json"
    command = ["bench", "runtimes", str(tmp_path / "a.safetensors"), "--plans", "3", "--batch", "1", "2"]
    assert main([*command, "--json", str(out)]) == 0
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "torch compiled: skipped, for there is no C++ compiler" in said
    rows = {(t["settings"], t["batch"], t["runtime"]): t for t in found["timings"]}
    assert set(rows) == {(s, b, r) for s in runtimes.SETTINGS for b in (1, 2) for r in ("torch eager", "ONNX Runtime")}
    for (settings, batch, runtime), t in rows.items():
        assert 0 < t["p50_ms"] <= t["p99_ms"] and t["off"] <= 1e-4
        assert t["evaluations"] == rows[settings, batch, "torch eager"]["evaluations"] > 0
        assert f"| {settings} | {batch} | {t['evaluations']} | {runtime} | {t['p50_ms']:.2f} |" in said
    assert found["plans"] == 3 and "torch" in found["versions"]


def test_numbers_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "runtimes", "--plans", "0"]) == 2
    assert "0 plans of batches (1, 16) were asked for" in capsys.readouterr().err
