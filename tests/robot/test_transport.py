"""What the environment asks of Fast DDS: no shared memory, unless somebody chose otherwise."""

from __future__ import annotations

import os

import pytest

from dfplanner_robot.nodes.transport import BUILTIN, LOCALHOST, PEERS, PROFILES, RANGE, without_shared_memory

OURS = str(LOCALHOST)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {BUILTIN: "UDPv4"}),
        ({RANGE: "SUBNET"}, {BUILTIN: "UDPv4", RANGE: "SUBNET"}),
        ({RANGE: "LOCALHOST"}, {BUILTIN: "UDPv4", RANGE: "SYSTEM_DEFAULT", PROFILES: OURS}),
        (
            {RANGE: "LOCALHOST", BUILTIN: "UDPv4", PROFILES: OURS},
            {BUILTIN: "UDPv4", RANGE: "SYSTEM_DEFAULT", PROFILES: OURS},
        ),
        ({RANGE: "LOCALHOST", PEERS: "192.0.2.7"}, {BUILTIN: "UDPv4", RANGE: "LOCALHOST", PEERS: "192.0.2.7"}),
        ({RANGE: "LOCALHOST", BUILTIN: "SHM"}, None),
        ({RANGE: "LOCALHOST", PROFILES: "my.xml"}, None),
        ({RANGE: "LOCALHOST", "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, None),
    ],
)
def test_only_what_nobody_chose_is_set(
    given: dict[str, str], wanted: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = (RANGE, PEERS, PROFILES, BUILTIN, "RMW_IMPLEMENTATION")
    for key in keys:
        monkeypatch.setenv(key, "")  # so that what is set here ends with the test
        monkeypatch.delenv(key)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    for _ in range(2):  # children inherit what was set, and do the same
        without_shared_memory()
        assert {key: os.environ[key] for key in keys if key in os.environ} == (given if wanted is None else wanted)
