"""The server of ``chunk_server.py``, whose answers take so many seconds as a file says. ``slow_server.py FILE``."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from chunk_server import ChunkServer
from websockets.sync.server import ServerConnection


class SlowServer(ChunkServer):
    """Looks at the file before each answer."""

    def __init__(self, file: Path) -> None:
        self.file = file
        super().__init__()

    def answer(self, connection: ServerConnection, request: dict[str, Any]) -> None:
        time.sleep(float(self.file.read_text() or 0.0))
        super().answer(connection, request)


if __name__ == "__main__":
    with SlowServer(Path(sys.argv[1])) as server:
        print(f"listening on {server.url}", flush=True)
        threading.Event().wait()
