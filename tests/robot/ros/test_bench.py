"""The graph's own benchmark: processes come up, a goal is reached, every fault of a planner ends as it should."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("rclpy", reason="needs rclpy: pip install 'dfplanner[ros]'")

from dfplanner.cli import main
from dfplanner_robot.fakes import KINDS
from dfplanner_robot.nodes.exercise import FAULTS


@pytest.mark.slow
def test_goals_are_reached_and_no_fault_reaches_the_arm(tmp_path, capsys) -> None:
    assert (
        main(["bench", "ros", "--goals", "3", "--faults", str(len(FAULTS)), "--json", str(tmp_path / "ros.json")]) == 0
    )
    found = json.loads((tmp_path / "ros.json").read_text())
    goals, faults = found["goals"], found["faults"]
    assert goals["n"] == 3 and goals["reached"] >= 2  # a learnt planner may not find every way
    assert goals["violations"] == goals["touched"] == 0
    assert goals["readings_hz"] > 100
    assert goals["splice_rad"]["max"] < 0.01 and goals["splice_rad_s"]["max"] < 0.1
    assert faults["violations"] == faults["touched"] == 0
    assert [s["kind"] for s in faults["seen"]] == list(FAULTS)
    for seen in faults["seen"]:
        assert (seen["to_brake_s"] == seen["to_brake_s"]) == KINDS[seen["kind"]].brakes, seen
        if KINDS[seen["kind"]].brakes:
            assert seen["to_brake_s"] < 0.25 and seen["state"] in ("ready", "stopped"), seen
    said = capsys.readouterr().out
    assert "| plan: wild chunk | 1 |" in said and "goals reached, one after the other |" in said


def test_what_cannot_be_run_is_said(capsys) -> None:
    assert main(["bench", "ros", "--goals", "0", "--faults", "0"]) == 2
    assert "at least one of either" in capsys.readouterr().err
