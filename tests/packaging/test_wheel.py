"""A wheel holds what pip's users and ROS look for, under one version."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

import dfplanner

ROOT = Path(__file__).resolve().parents[2]
NODES = ("guard_node", "planner_node", "sim_node")


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.mark.slow
def test_the_wheel_holds_everything(wheel: Path) -> None:
    version = dfplanner.__version__
    assert wheel.name == f"dfplanner-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        held = {info.filename: info for info in opened.infolist()}
        entries = configparser.ConfigParser()
        entries.read_string(opened.read(f"dfplanner-{version}.dist-info/entry_points.txt").decode())
        metadata = opened.read(f"dfplanner-{version}.dist-info/METADATA").decode()
    assert dict(entries["console_scripts"]) == {"dfplanner": "dfplanner.cli:main"}
    assert "Requires-Python: >=3.10" in metadata

    data = f"dfplanner-{version}.data/data"
    shipped = {name.removeprefix(f"{data}/") for name in held if name.startswith(data)}
    assert shipped == {
        "share/ament_index/resource_index/packages/dfplanner",
        *(f"share/dfplanner/{name}" for name in ("package.xml", "pyproject.toml", "README.md")),
        *(f"share/dfplanner/launch/{path.name}" for path in (ROOT / "launch").glob("*.launch.py")),
        *(f"share/dfplanner/config/{path.name}" for path in (ROOT / "launch" / "config").iterdir()),
        *(f"lib/dfplanner/{name}" for name in NODES),
    }
    for name in NODES:
        assert held[f"{data}/lib/dfplanner/{name}"].external_attr >> 16 & 0o111 == 0o111, f"{name} cannot be executed"

    for folder, package in (("dfplanner", "dfplanner"), ("envs", "dfplanner_envs"), ("robot", "dfplanner_robot")):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        absent = {f"{package}/{path.relative_to(ROOT / folder).as_posix()}" for path in files} - held.keys()
        assert not absent
    assert sum(name.endswith(".safetensors") for name in held) >= 21


def test_no_folder_shadows_ros() -> None:
    assert not list((ROOT / "launch").rglob("__init__.py"))


def test_versions_agree(manifest: ElementTree.Element) -> None:
    assert manifest.findtext("version") == dfplanner.__version__
    assert manifest.findtext("name") == "dfplanner"
    assert manifest.findtext("export/build_type") == "ament_python"


def test_the_manifest_names_what_the_nodes_import(manifest: ElementTree.Element) -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "robot" / "nodes").glob("*.py"))
    used = set(re.findall(r"^from (\w+)\.(?:msg|srv) import", text, re.M)) | {"rclpy", "launch", "launch_ros"}
    named = {element.text for element in manifest.findall("exec_depend")}
    # rclpy brings the messages of parameters.
    assert used - {"rcl_interfaces"} <= named


@pytest.mark.slow
def test_an_environment_that_pip_filled_is_a_prefix_for_ros(wheel: Path, tmp_path: Path) -> None:
    """The launchers there take its own Python, whatever the path says; without dependencies that is all they say."""
    venv = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path)]
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "bin" / "python3"), "install", "-q"]
    for command in (venv, [*pip, "--no-deps", "--no-index", str(wheel)]):
        subprocess.run(command, check=True)
    assert (tmp_path / "share" / "ament_index" / "resource_index" / "packages" / "dfplanner").is_file()
    assert (tmp_path / "share" / "dfplanner" / "launch" / "arm.launch.py").is_file()
    for name in NODES:
        done = subprocess.run([tmp_path / "lib" / "dfplanner" / name], capture_output=True, text=True)
        assert done.returncode == 1
        assert str(tmp_path) in done.stderr, "it took another Python"
        assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("name", NODES)
def test_launchers_start_the_nodes(name: str, prefix: Path, environment: dict[str, str]) -> None:
    """As launch does; a parameter that cannot be makes each of them end at once, in its own words."""
    pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'dfplanner[ros]'")
    wrong = "runtime:=abacus" if name == "planner_node" else "model:=nowhere.xml"
    command = [str(prefix / "lib" / "dfplanner" / name), "--ros-args", "-p", wrong]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert wrong.partition(":=")[2] in done.stderr
    assert "Traceback" not in done.stderr


def test_ros_finds_the_share(prefix: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    index = pytest.importorskip("ament_index_python.packages", reason="needs ROS 2: pip install 'dfplanner[ros]'")
    monkeypatch.setenv("AMENT_PREFIX_PATH", environment["AMENT_PREFIX_PATH"])
    assert index.get_package_share_directory("dfplanner") == str(prefix / "share" / "dfplanner")
