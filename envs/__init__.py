"""Gymnasium environments for dfplanner; importing this registers them."""

from gymnasium.envs.registration import register

from dfplanner_envs.mazes import MAZES, TITLES, Maze, maze_of, normalized_score
from dfplanner_envs.wrappers import make, make_vec

__all__ = ["MAZES", "Maze", "make", "make_vec", "maze_of", "normalized_score"]

for _name, _maze in MAZES.items():
    for _task, _multi in (("Maze2D", False), ("Multi2D", True)):
        register(
            id=f"dfplanner/{_task}-{TITLES[_name]}-v0",
            entry_point="dfplanner_envs.maze2d:Maze2DEnv",
            vector_entry_point="dfplanner_envs.vector:VectorMaze2D",
            max_episode_steps=_maze.horizon,
            kwargs={"maze": _name, "multi": _multi},
        )

register(
    id="dfplanner/ArmReach-v0",
    entry_point="dfplanner_envs.arm.env:ArmReachEnv",
    vector_entry_point="dfplanner_envs.arm.env:VectorArmReach",
    max_episode_steps=200,
)
