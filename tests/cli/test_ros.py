"""``dfplanner ros``: what works here, flags that become parameters, nodes as processes, and life without ROS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfplanner.cli import main
from dfplanner.cli.ros import Planner, Sim, parameters, split


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A real process of the command line."""
    return subprocess.run(
        [sys.executable, "-m", "dfplanner", *args],
        env={**os.environ, **alone(), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def alone() -> dict[str, str]:
    """A domain for each process that tests."""
    return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(60 + os.getpid() % 40)}


def test_flags_become_parameters_and_the_rest_goes_to_ros() -> None:
    assert split(["--model", "x", "--ros-args", "-r", "a:=b"]) == (["--model", "x"], ["-r", "a:=b"])
    assert split(["--model"]) == (["--model"], [])
    assert parameters(Planner()) == [] and parameters(Sim()) == []
    words = parameters(Planner(autostart=True, checkpoint="7", runtime="onnx"))
    assert words == ["-p", "autostart:=true", "-p", 'checkpoint:="7"', "-p", 'runtime:="onnx"']
    assert parameters(Sim(real_time_factor=2.0)) == ["-p", "real_time_factor:=2.0"]


def test_help_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["ros"])
    assert not end.value.code and "  planner  " in capsys.readouterr().out
    for words, said in {
        "ros fly": "dfplanner ros has no 'fly'; it has sim, planner, guard, goal, call, check",
        "ros planner --runtime jax": "invalid choice 'jax'",
        "ros sim --speed 2": "dfplanner ros sim --help says what can be given",
    }.items():
        assert main(words.split()) == 2
        assert said in capsys.readouterr().err


def test_without_ros_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "rclpy.py").write_text("raise ImportError(\"No module named 'rclpy'\", name='rclpy')")
    for node in ("sim", "planner", "guard"):
        done = run("ros", node, PYTHONPATH=str(tmp_path))
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert 'needs rclpy; run pip install "dfplanner[ros]", or source a ROS 2' in done.stderr
    done = run("ros", "check", "--checkpoint", "maze2d-umaze", PYTHONPATH=str(tmp_path))
    rows = table(done.stdout)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (rows["rclpy"], rows["checkpoint"]) == ("missing", "ok") and "round trip" not in rows
    assert "No module named 'rclpy'" in done.stdout and "source" in done.stdout


def table(said: str) -> dict[str, str]:
    """What each row of the check's table says."""
    lines = [line for line in said.splitlines() if not line.startswith(" ")]
    return {line[:18].strip(): line[19:27].strip() for line in lines}


def test_the_check_says_what_works() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")
    done = run("ros", "check", "--checkpoint", "maze2d-umaze", "--wait-s", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table(done.stdout)
    for what in ("rclpy", "messages", "discovery", "round trip", "msgpack", "websockets", "checkpoint"):
        assert rows[what] == "ok", done.stdout
    assert rows["node planner"] == "note" and "dfplanner ros planner" in done.stdout
    done = run("ros", "check", "--checkpoint", "nosuch", RMW_IMPLEMENTATION="rmw_nosuch_cpp")
    rows = table(done.stdout)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (rows["rclpy"], rows["checkpoint"]) == ("missing", "missing")
    assert "unset RMW_IMPLEMENTATION" in done.stdout


@pytest.mark.slow
def test_nodes_run_in_the_foreground_until_they_are_told_to_end(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")
    orders = {
        "sim": ["--real-time-factor", "2", "--ros-args", "-p", "seed:=3"],
        "planner": ["--checkpoint", "nosuch", "--use-sim-time"],
        "guard": [],
    }
    logs, processes = {}, {}
    for name, words in orders.items():
        logs[name] = tmp_path / name
        with open(logs[name], "w") as log:
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dfplanner", "ros", name, *words],
                env={**os.environ, **alone()},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    try:
        end = time.monotonic() + 60
        seen: dict[str, str] = {}
        while not all(seen.get(f"node {name}") == "ok" for name in orders):
            assert time.monotonic() < end, {n: p.read_text() for n, p in logs.items()}
            seen = table(run("ros", "check", "--checkpoint", "maze2d-umaze", "--wait-s", "20").stdout)
        for name, process in processes.items():
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0, logs[name].read_text()
            assert "Traceback" not in logs[name].read_text()
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def test_a_wrong_parameter_is_a_sentence() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")
    done = run("ros", "planner", "--server-url", "http://somewhere")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "expected ws://HOST:PORT" in done.stderr
