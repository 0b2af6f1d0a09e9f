"""The doctor names what is missing and the command that brings it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from dfplanner import checkpoint, doctor


def advice_for(what: str) -> tuple[str, str]:
    return next((found, advice) for name, found, advice in doctor.report() if name == what)


@pytest.fixture(autouse=True)
def no_rendering_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would start a process and load MuJoCo in it."""
    monkeypatch.setattr(doctor, "_gl_works", lambda backend: backend == "osmesa")


def test_a_missing_package_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found, advice = advice_for("stable_baselines3")
    assert found == "not installed"
    assert advice.endswith('pip install "dfplanner[sb3]"')


def test_a_present_package_needs_no_advice() -> None:
    found, advice = advice_for("numpy")
    assert found.count(".") >= 1
    assert advice == ""


def test_every_extra_the_doctor_names_exists() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    for distribution, extra, _ in doctor._OPTIONAL.values():
        assert any(distribution in requirement for requirement in extras[extra])


def test_rendering_advice_is_the_setting_that_works() -> None:
    assert advice_for("rendering")[1] == "export MUJOCO_GL=osmesa"


def test_a_broken_checkpoint_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    monkeypatch.setattr(checkpoint, "BUNDLED", tmp_path)
    found, advice = advice_for("checkpoints")
    assert found == "none"
    assert str(broken) in advice


def test_the_printed_report_has_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.main()
    printed = capsys.readouterr().out
    assert all(what in printed and found in printed for what, found, _ in doctor.report())
