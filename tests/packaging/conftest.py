"""The package as its users get it: a wheel, and a prefix that pip filled with it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def loaded(path: Path, name: str) -> ModuleType:
    """A file that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def steps() -> ModuleType:
    """``docker/steps.py``."""
    return loaded(ROOT / "docker" / "steps.py", "dfplanner_docker_steps")


@pytest.fixture(scope="session")
def source(steps: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what an image is built from, and no more: so builds leave nothing here, and find nothing old."""
    folder = tmp_path_factory.mktemp("source") / "dfplanner"
    for name in steps.context(ROOT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def prefix(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ROS looks for in one, as an installation puts it there; the Python is this environment's."""
    folder = tmp_path_factory.mktemp("prefix")
    run([sys.executable, "setup.py", "-q", "install_data", "--install-dir", str(folder)], cwd=source)
    return folder


@pytest.fixture(scope="session")
def environment(prefix: Path) -> dict[str, str]:
    """In which ROS finds what is in ``prefix``, and its launchers this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "AMENT_PREFIX_PATH": str(prefix), "PATH": path}


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip makes of the source, without the network."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(out), str(source)])
    (made,) = out.glob("*.whl")
    return made


def run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Runs to the end, with exit code 0, and returns what was said; what was said is shown otherwise."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def standin() -> ModuleType:
    """``standin.py`` beside this file."""
    return loaded(Path(__file__).with_name("standin.py"), "dfplanner_launch_standin")
