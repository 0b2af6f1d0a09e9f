"""The maze's ball instead of an arm, through the same nodes, with the arguments of arm.launch.py.

    ros2 launch dfplanner maze.launch.py
    ros2 topic pub --once /goal_pose geometry_msgs/msg/PoseStamped \\
        '{header: {frame_id: base}, pose: {position: {x: 2.9, y: 2.0}}}'
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    share = Path(get_package_share_directory("dfplanner"))
    params = str(share / "config" / "maze.yaml")
    source = PythonLaunchDescriptionSource(str(share / "launch" / "arm.launch.py"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("params", default_value=params, description="YAML of the nodes' parameters"),
            IncludeLaunchDescription(source),
        ]
    )
