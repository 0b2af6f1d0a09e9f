"""``dfplanner ros goal`` and ``ros call`` as commands, against the simulated arm and the bundled model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")

from dfplanner.checkpoint import bundled
from dfplanner.cli import main

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module", autouse=True)
def running(graph: Any) -> None:
    if "arm-reach" not in bundled():
        pytest.skip("needs the bundled arm-reach model")
    graph.start("sim_node", heartbeat_timeout_s=1.0, plan_timeout_s=1.0, late_s=1.0)
    graph.start("planner_node", autostart=True)
    graph.told("planner", "phase", "waiting")


def ros(graph: Any, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dfplanner", "ros", *words],
        env=graph.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_goal_that_the_docs_have_is_reached(graph: Any) -> None:
    words = re.search(r"dfplanner ros goal ([-\d. ]+?) +#", (DOCS / "ros2.md").read_text())
    assert words
    done = ros(graph, "goal", *words[1].split())
    assert done.returncode == 0 and "arrived after" in done.stdout, done


def test_what_is_refused_is_told(graph: Any) -> None:
    done = ros(graph, "goal", "3", "0", "0.4")
    assert done.returncode != 0 and "out of the arm's reach" in done.stderr and "Traceback" not in done.stderr
    done = ros(graph, "goal", "0.4", "0.2", "0.4", "--frame", "world")
    assert done.returncode != 0 and "'world'" in done.stderr
    done = ros(graph, "call", "/arm_guard/start")
    assert done.returncode != 0 and "expected" in done.stderr


def test_services_answer(graph: Any) -> None:
    assert "stopped" in ros(graph, "call", "/planner/stop").stdout
    assert "plans again" in ros(graph, "call", "/planner/resume").stdout


def test_what_makes_no_sense_is_said_without_a_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ros", "goal", "1"]) != 0 and "x y z of a hand" in capsys.readouterr().err
    assert main(["ros", "call", "/planner/go"]) != 0 and "/planner/stop" in capsys.readouterr().err
