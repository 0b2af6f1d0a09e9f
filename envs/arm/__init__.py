"""A seven-joint arm that reaches among obstacles: model, kinematics, collisions, task, data."""

from dfplanner_envs.arm.limits import JointLimits
from dfplanner_envs.arm.model import Arm, arm_of, reach_arm

__all__ = ["Arm", "JointLimits", "arm_of", "reach_arm"]
