"""A test skipped for want of a package tests nothing: where everything is to be tested, all of them are there."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys

import pytest

OPTIONAL = (
    "d4rl",
    "diffusers",
    "gymnasium_robotics",
    "minari",
    "ogbench",
    "onnx",
    "onnxruntime",
    "openpi_client",
    "prometheus_client",
    *(["rclpy"] if (sys.platform, platform.machine()) == ("linux", "x86_64") else []),  # elsewhere it has no wheels
    "stable_baselines3",
    "websockets",
)
"""What tests are skipped without."""


@pytest.mark.skipif(not os.environ.get("CI"), reason="CI is not set: absent packages are the user's choice here")
def test_nothing_is_skipped_for_want_of_a_package() -> None:
    assert [name for name in OPTIONAL if importlib.util.find_spec(name) is None] == []
