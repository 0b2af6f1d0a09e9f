"""``dfplanner doctor``: what this machine has, and what to install."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dfplanner.cli.common import parse


@dataclass(frozen=True)
class Doctor:
    """Print versions, device, threads, rendering, ROS and optional packages, and what to install."""


def run(args: Sequence[str]) -> None:
    """Print the report."""
    from dfplanner import doctor

    parse(Doctor, "doctor", args)
    doctor.main()
