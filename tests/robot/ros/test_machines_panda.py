"""An arm as menagerie models Panda: servos as <general>, fingers that share a tendon's servo, a keyframe ``home``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfplanner_robot.nodes.gate import Gate
from dfplanner_robot.nodes.machines import load
from dfplanner_robot.nodes.sim_arm import Sensors, Simulation, ticks
from dfplanner_robot.settings import SafetySettings
from dfplanner_robot.states import Mode, Outcome
from dfplanner_robot.trajectory import JointTrajectory

NAMES = tuple(f"joint{i}" for i in range(1, 8))
HOME = np.array([0.0, 0.0, 0.0, -1.57, 0.0, 1.57, -0.785])
AWAY = HOME + np.array([0.5, 0.3, -0.3, -0.4, 0.4, 0.3, 0.5])
OPEN = 0.04
LINKS = (
    # where each link begins in the one before, how it is turned, its joint's range, its servo's stiffness
    ("0 0 .333", "1 0 0 0", -2.9, 2.9, 4500),
    ("0 0 0", "1 -1 0 0", -1.76, 1.76, 4500),
    ("0 -.316 0", "1 1 0 0", -2.9, 2.9, 3500),
    (".0825 0 0", "1 1 0 0", -3.07, -0.07, 3500),
    ("-.0825 .384 0", "1 -1 0 0", -2.9, 2.9, 2000),
    ("0 0 0", "1 1 0 0", -0.02, 3.75, 2000),
    (".088 0 0", "1 1 0 0", -2.9, 2.9, 2000),
)
FINGER = """<joint name="{0}" type="slide" axis="0 1 0" range="0 .04"/>
  <geom name="{0}" type="box" size=".008 .004 .02" pos="0 .004 .03" mass=".02"/>"""


def panda() -> str:
    """MJCF; its fingers are closed where their joints are 0, and touch there."""
    body = f"""<body pos="0 0 .107"><geom type="box" size=".03 .1 .03" pos="0 0 .03" mass=".7"/>
      <body pos="0 0 .06">{FINGER.format("left")}</body>
      <body pos="0 0 .06" quat="0 0 0 1">{FINGER.format("right")}</body></body>"""
    servos = ""
    for name, (pos, quat, low, high, k) in reversed(list(zip(NAMES, LINKS, strict=True))):
        body = f"""<body pos="{pos}" quat="{quat}"><geom type="sphere" size=".035" mass="2"/>
          <joint name="{name}" axis="0 0 1" range="{low} {high}" armature=".1" damping="1"/>{body}</body>"""
        servos += f"""<general joint="{name}" biastype="affine" gainprm="{k}" biasprm="0 -{k} -{k // 10}"
          ctrlrange="{low} {high}" forcerange="-87 87"/>"""
    place, told = " ".join(map(str, HOME)), " ".join(map(str, HOME[::-1]))  # servos are listed from the hand on
    return f"""<mujoco><compiler angle="radian" autolimits="true"/><option integrator="implicitfast"/>
      <worldbody><geom name="floor" type="plane" size="0 0 .05"/><body>{body}</body></worldbody>
      <tendon><fixed name="both"><joint joint="left" coef=".5"/><joint joint="right" coef=".5"/></fixed></tendon>
      <equality><joint joint1="left" joint2="right"/></equality>
      <actuator>{servos}<general tendon="both" biastype="affine" gainprm=".015686" biasprm="0 -100 -10"
        ctrlrange="0 255" forcerange="-100 100"/></actuator>
      <keyframe><key name="home" qpos="{place} {OPEN} {OPEN}" ctrl="{told} 255"/></keyframe></mujoco>"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model") / "panda.xml"
    made.write_text(panda())
    return made


def test_what_is_commanded_are_the_joints_with_servos_of_their_own(file: Path) -> None:
    machine = load(str(file))
    limits = machine.limits
    assert limits.names == NAMES
    np.testing.assert_allclose([limits.lower, limits.upper], np.array([x[2:4] for x in LINKS]).T)
    np.testing.assert_array_equal([limits.velocity, limits.acceleration], np.multiply([[1.5], [6.0]], np.ones((2, 7))))
    np.testing.assert_array_equal(limits.effort, np.full(7, 87.0))
    np.testing.assert_allclose(machine.start, [*HOME, OPEN, OPEN])
    np.testing.assert_allclose(machine.hand()(HOME[None])[0], [0.5545, 0.0, 0.7315], atol=1e-3)


def test_it_follows_plans_with_its_gripper_as_it_was(file: Path) -> None:
    machine = load(str(file))
    dt = float(machine.arm.model.opt.timestep)
    settings = SafetySettings(dt_s=dt * ticks(dt))
    gate = Gate(machine.limits, settings, machine.surroundings(0.02, 0.005), True)
    sim = Simulation(machine, Sensors(), np.random.default_rng(0), 1000.0, gate)
    for _ in range(round(0.2 / dt)):
        sim.step()
    assert gate.mode is Mode.READY
    plan = JointTrajectory(NAMES, 0.0, np.array([0.1]), AWAY[None])
    assert gate.propose(sim.now, plan).outcome is Outcome.PASS
    off = []
    for _ in range(round(3.0 / dt)):
        sim.step()
        off.append(np.abs(sim.data.qpos[:7] - sim._commanded[0]).max())
    assert max(off) < 0.03
    np.testing.assert_allclose(sim.data.qpos, [*AWAY, OPEN, OPEN], atol=2e-3)
    assert (sim.violations, sim.touched) == (0, 0)
    beneath = HOME + np.array([0.0, 1.7, 0.0, 1.2, 0.0, 0.0, 0.0])  # the hand in the floor
    assert gate.propose(sim.now, replace(plan, positions=beneath[None])).outcome is Outcome.BRAKE
    assert gate.facts()["reason"] == "collision"


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="needs ROS 2: rclpy is not installed")
def test_the_command_simulates_it_on_the_graph(file: Path, graph: Any, tmp_path: Path) -> None:
    log = tmp_path / "sim.log"
    command = [sys.executable, "-m", "dfplanner", "ros", "sim", "--model", str(file)]
    with open(log, "w") as out:
        process = subprocess.Popen(command, env=graph.environment, stdout=out, stderr=subprocess.STDOUT, text=True)
    graph.processes.append((process, log))
    graph.until("ready")
    graph.wait(lambda: len(graph.joints) > 25, "joint states")
    assert graph.last.names == NAMES
    begun = graph.send(JointTrajectory(NAMES, 0.0, np.array([0.5]), AWAY[None]))
    graph.wait(lambda: np.abs(graph.last.positions - AWAY).max() < 0.02, "the end of the trajectory")
    graph.still()
    assert "braking" not in [s for t, s in graph.states if t >= begun]
    assert (graph.told("guard", "mode", "ready")["pass"], graph.said["simulation"][2]["violations"]) == ("1", "0")
