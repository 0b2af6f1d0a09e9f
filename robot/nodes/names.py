"""Names that the nodes have on the graph: a contract, remappable as anything in ROS 2 is. Imports no ROS."""

from __future__ import annotations

PLANNER, SIM, GUARD = "planner", "arm_sim", "arm_guard"
"""Nodes. Where the simulation has the guard inside, that speaks under the guard's names all the same."""

JOINT_STATES = "/joint_states"
"""sensor_msgs/JointState, from the arm."""
COMMAND = "/joint_trajectory_controller/joint_trajectory"
"""trajectory_msgs/JointTrajectory, to the arm: what ros2_control's joint_trajectory_controller listens to."""
GUARDED = f"/{GUARD}/joint_trajectory"
"""trajectory_msgs/JointTrajectory, to a guard that is a node of its own; it commands the arm on ``COMMAND``."""
GOAL_POSE = "/goal_pose"
"""geometry_msgs/PoseStamped in the base frame: where the hand is to go."""
GOAL_JOINTS = "/goal_joints"
"""sensor_msgs/JointState: a posture whose hand's place is the goal."""
HAND_POSE = "/hand_pose"
"""geometry_msgs/PoseStamped in the base frame: where the hand is."""
PLAN, PLAN_MARKERS = "/plan", "/plan_markers"
"""nav_msgs/Path and visualization_msgs/MarkerArray: the plan of the hand, and how sure each token of it is."""
DIAGNOSTICS = "/diagnostics"
HEARTBEAT = f"/{PLANNER}/heartbeat"
"""std_msgs/Header at 50 Hz while the planner is active: its stamp, nothing else."""
GUARD_STATE = f"/{GUARD}/state"
"""std_msgs/String, latched: the guard's mode (``dfplanner_robot.states.Mode``), at each change and once a second."""
GUARD_SERVICES = tuple(f"/{GUARD}/{name}" for name in ("start", "stop", "resume", "reset"))
"""std_srvs/Trigger."""
PLANNER_SERVICES = tuple(f"/{PLANNER}/{name}" for name in ("stop", "resume", "reset", "reload"))
"""std_srvs/Trigger."""
BASE_FRAME = "base"


def is_maze(model: str) -> bool:
    """Whether a node's parameter ``model`` names a maze, whose ball is driven, and not an arm's file."""
    return model.lower().startswith(("maze2d-", "multi2d-"))
