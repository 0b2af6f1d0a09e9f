"""The arm, simulated or real: its guard, and the planner in front of it.

    ros2 launch dfplanner arm.launch.py sim:=true
    ros2 launch dfplanner arm.launch.py checkpoint:=arm-reach server_url:=ws://planner-host:8000

With a real arm, its own driver brings /joint_states and listens to the guard's commands; the guard then waits for
`ros2 service call /arm_guard/start std_srvs/srv/Trigger`.
"""

from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

BOOLEAN = ("true", "false")
AS_FILED = "; empty: what the params file says"

# The nodes' names for topics (dfplanner_robot.nodes.names), by the names that the params file has for them.
TOPICS = {
    "joint_states": "/joint_states",
    "command": "/joint_trajectory_controller/joint_trajectory",
    "goal_pose": "/goal_pose",
    "goal_joints": "/goal_joints",
    "hand_pose": "/hand_pose",
    "plan": "/plan",
    "plan_markers": "/plan_markers",
}
GUARDED = "/arm_guard/joint_trajectory"

ARGUMENTS = [
    DeclareLaunchArgument("sim", default_value="true", choices=BOOLEAN, description="simulate the arm, with its time"),
    DeclareLaunchArgument("params", default_value="", description="YAML of the nodes' parameters; empty: arm.yaml"),
    DeclareLaunchArgument(
        "checkpoint", default_value="", description=f"the planner's: bundled name, file or hub id{AS_FILED}"
    ),
    DeclareLaunchArgument("runtime", default_value="", description=f"torch or onnx, for the planner{AS_FILED}"),
    DeclareLaunchArgument(
        "server_url", default_value="", description=f"a running `dfplanner serve` that plans, ws://HOST:PORT{AS_FILED}"
    ),
    DeclareLaunchArgument(
        "model", default_value="", description=f"the arm, a file in MJCF, or a maze such as maze2d-large{AS_FILED}"
    ),
    DeclareLaunchArgument(
        "real_time_factor", default_value="", description=f"seconds simulated in one of ours, 0.1 to 10{AS_FILED}"
    ),
    DeclareLaunchArgument(
        "autostart", default_value="true", choices=BOOLEAN, description="the planner configures and activates itself"
    ),
    DeclareLaunchArgument("rviz", default_value="false", choices=BOOLEAN, description="show hand, goal and plan"),
]


def start(context: LaunchContext) -> list[Node]:
    """The nodes that the arguments ask for."""
    given = {a.name: LaunchConfiguration(a.name).perform(context) for a in ARGUMENTS}
    sim = given["sim"] == "true"
    config = Path(get_package_share_directory("dfplanner")) / "config"
    file = given["params"] or str(config / "arm.yaml")
    filed = yaml.safe_load(Path(file).read_text()).get("launch", {}).get("ros__parameters", {})
    topics = {TOPICS[key]: name for key, name in filed.get("topics", {}).items()}

    def node(executable: str, given_here: dict, remapped: dict[str, str] | None = None, **options: object) -> Node:
        parameters = [file, {"use_sim_time": sim, **given_here}]
        renamed = [pair for pair in {**topics, **(remapped or {})}.items() if pair[0] != pair[1]]
        return Node(
            package="dfplanner",
            executable=executable,
            parameters=parameters,
            remappings=renamed,
            output="screen",
            **options,
        )

    def said(*names: str) -> dict[str, str]:
        return {name: given[name] for name in names if given[name]}

    pace = {"real_time_factor": float(given["real_time_factor"])} if given["real_time_factor"] else {}
    planner = {"autostart": given["autostart"] == "true", **said("checkpoint", "runtime", "server_url")}
    if given["model"].lower().startswith(("maze2d-", "multi2d-")):  # of arms, the planner knows its own alone
        planner |= said("model")
    nodes = [
        # Without a guard nothing may move, so that everything ends with it.
        node("guard_node", {"autostart": sim, **said("model")}, on_exit=Shutdown(reason="the guard ended")),
        node("planner_node", planner, {TOPICS["command"]: GUARDED}, respawn=True, respawn_delay=2.0),
    ]
    if sim:
        # It is the clock, so its own time is the machine's.
        arm = {"use_sim_time": False, "guard": False, **pace, **said("model")}
        nodes.insert(0, node("sim_node", arm, on_exit=Shutdown(reason="the simulation ended")))
    if given["rviz"] == "true":
        view, clock = ["-d", str(config / "plan.rviz")], [{"use_sim_time": sim}]
        nodes.append(Node(package="rviz2", executable="rviz2", arguments=view, parameters=clock))
    return nodes


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
