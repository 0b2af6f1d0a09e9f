"""Which import package lives in which folder, and what ROS 2 looks for in a prefix; the rest is in pyproject.toml."""

from glob import glob

from setuptools import find_packages, setup

FOLDERS = {"dfplanner_envs": "envs", "dfplanner_robot": "robot"}

packages = [
    f"{name}.{sub}".rstrip(".")
    for name, at in {"dfplanner": "dfplanner", **FOLDERS}.items()
    for sub in ["", *find_packages(at)]
]

# With these, an environment that pip filled and a workspace that colcon built are prefixes in which `ros2` finds us.
# `colcon build --symlink-install` runs this file in another folder, to which it links what is named here: so that is
# why the last two are.
data_files = [
    ("share/ament_index/resource_index/packages", ["resource/dfplanner"]),
    ("share/dfplanner/launch", sorted(glob("launch/*.launch.py"))),
    ("share/dfplanner/config", sorted(glob("launch/config/*"))),
    ("lib/dfplanner", sorted(glob("launch/nodes/*"))),
    ("share/dfplanner", ["package.xml", "pyproject.toml", "README.md"]),
]

setup(packages=packages, package_dir=FOLDERS, data_files=data_files, python_requires=">=3.10")
