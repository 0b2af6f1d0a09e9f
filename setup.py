"""Which import package lives in which folder; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = {
    "dfplanner": "dfplanner",
    "dfplanner_envs": "envs",
    "dfplanner_robot": "robot",
}

packages = [f"{name}.{sub}".rstrip(".") for name, at in FOLDERS.items() for sub in ["", *find_packages(at)]]

setup(packages=packages, package_dir=FOLDERS)
