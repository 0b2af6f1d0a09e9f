"""colcon builds this root as an ament_python package, in both of its ways, into a prefix that ROS finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dfplanner

ROOT = Path(__file__).resolve().parents[2]
# `make` puts it into an environment of its own: it brings plugins for pytest, and wants an old setuptools.
PATHS = (os.environ.get("PATH", ""), str(ROOT / ".venv" / "colcon" / "bin"))
REPORT = """
from pathlib import Path
from ament_index_python.packages import get_package_prefix, get_package_share_directory
import dfplanner, dfplanner_envs, dfplanner_robot
print(get_package_prefix("dfplanner"), get_package_share_directory("dfplanner"))
print(*(Path(m.__file__).parent.resolve() for m in (dfplanner, dfplanner_envs, dfplanner_robot)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--symlink-install",)], ids=["copied", "linked"])
def test_colcon_builds_it(flags: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    colcon = shutil.which("colcon", path=os.pathsep.join(PATHS))
    if colcon is None:
        pytest.skip("needs colcon: pip install colcon-common-extensions 'setuptools<80', or make test")
    pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'dfplanner[ros]'")
    home = tmp_path / "src" / "dfplanner"
    shutil.copytree(source, home)
    done = subprocess.run([colcon, "build", *flags], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 package finished" in done.stdout

    prefix = tmp_path / "install" / "dfplanner"
    share = prefix / "share" / "dfplanner"
    assert {path.name for path in (share / "launch").iterdir()} == {"arm.launch.py", "maze.launch.py"}
    assert (share / "config" / "arm.yaml").is_file() and (share / "package.xml").is_file()
    linked = [path.is_symlink() for path in (share / "launch").iterdir()]
    assert linked == [bool(flags)] * 2, "an edit of a launch file is seen without a new build where that was asked for"

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def sourced(words: str) -> subprocess.CompletedProcess[str]:
        script = f". {tmp_path / 'install' / 'local_setup.sh'} && exec {words}"
        env = {**os.environ, "PATH": path, "COLCON_CURRENT_PREFIX": str(tmp_path / "install"), "REPORT": REPORT}
        return subprocess.run(["sh", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    done = sourced('python3 -c "$REPORT"')
    assert done.returncode == 0, done.stderr
    found, packages = done.stdout.splitlines()
    assert found.split() == [str(prefix), str(share)]
    assert all((home if flags else prefix) in Path(package).parents for package in packages.split())
    assert sourced("dfplanner --version").stdout.strip() == dfplanner.__version__
    for name in ("guard_node", "planner_node", "sim_node"):
        wrong = "runtime:=abacus" if name == "planner_node" else "model:=nowhere.xml"
        done = sourced(f"{prefix / 'lib' / 'dfplanner' / name} --ros-args -p {wrong}")
        assert done.returncode == 1 and wrong.partition(":=")[2] in done.stderr, done.stderr
