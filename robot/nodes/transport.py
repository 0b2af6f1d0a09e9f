"""How messages travel between processes of one machine: by UDP, never through Fast DDS's shared memory."""

from __future__ import annotations

import os
from pathlib import Path

RANGE, PEERS, PROFILES, BUILTIN = (
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "ROS_STATIC_PEERS",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_BUILTIN_TRANSPORTS",
)
LOCALHOST = Path(__file__).with_name("localhost.xml")


def without_shared_memory() -> None:
    """Sets, before ROS begins, what keeps Fast DDS from sharing memory, unless the environment chose its transports.

    A process killed while it holds a lock there can cut another off: about one guard in a hundred kills never heard a
    planner again (Fast-DDS issues 5469 and 2811). Nothing changes for other middleware. With LOCALHOST and peers named
    memory is shared still: the profile that replaces LOCALHOST would not know them.
    """
    if not os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps"):
        return
    if os.environ.get(PROFILES, str(LOCALHOST)) != str(LOCALHOST):
        return
    os.environ.setdefault(BUILTIN, "UDPv4")
    local = os.environ.get(RANGE) == "LOCALHOST" and not os.environ.get(PEERS)
    if local and os.environ[BUILTIN] == "UDPv4":  # rmw_fastrtps does not heed it there
        os.environ[PROFILES], os.environ[RANGE] = str(LOCALHOST), "SYSTEM_DEFAULT"
