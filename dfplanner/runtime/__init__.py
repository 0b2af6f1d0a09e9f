"""Plans without torch: a file of ``dfplanner export`` sampled with ONNX Runtime and numpy alone.

from dfplanner.runtime import load_planner
plan = load_planner("umaze.onnx").plan(observations, goal)
"""

from dfplanner.runtime.goals import Goal
from dfplanner.runtime.planner import OnnxPlanner, load_planner

__all__ = ["Goal", "OnnxPlanner", "load_planner"]
