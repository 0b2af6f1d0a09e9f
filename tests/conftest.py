"""Every test runs on one thread of the numerical libraries, and property tests have no deadline."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the processes that tests start

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# A deadline measures the machine, not the code. In CI the examples are the same in every run.
settings.register_profile("dfplanner", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("dfplanner")

GRAPHS = ("tests/robot/ros/", "tests/cli/test_ros.py", "tests/packaging/test_launch.py")
"""Where graphs of ROS nodes are started."""


@pytest.fixture(autouse=True)
def numbers_near_zero() -> Iterator[None]:
    """The command line lets its process flush them to zero; hypothesis cannot do without them."""
    yield
    torch.set_flush_denormal(False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """One graph of ROS nodes at a time: two workers' graphs on two cores would brake each other."""
    from xdist.scheduler import LoadScopeScheduling

    class OneGraph(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "ros" if nodeid.startswith(GRAPHS) else nodeid

    return OneGraph(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` are skipped where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none"))
