"""The command line: ``dfplanner {collect,train,bench,plan,serve,ros,export,checkpoints,doctor}``.

A command is a module here with ``run(args)``; it is imported when it is asked for, so that help is quick. What the user
can mend is told in one sentence on stderr, with exit code 2; Ctrl-C is exit code 130.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from dfplanner import __version__

COMMANDS = {
    "collect": "make an environment's data anew, as it was made or staying at the goal",
    "train": "train a model; goes on after an interruption with --resume",
    "bench": "run policies in environments, ours and others': tables, JSON, pictures",
    "plan": "draw a plan from a start to a goal",
    "serve": "plans over a WebSocket, in openpi's wire",
    "ros": "the planner, a simulated arm and its guard as ROS 2 nodes; what works here",
    "export": "a model as one ONNX file, from which plans are made without torch",
    "checkpoints": "list the models that are bundled, or in files",
    "doctor": "what this machine has, and what to install",
}


def usage() -> str:
    """The help of the program itself."""
    lines = [f"  {name:<12} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: dfplanner COMMAND ...",
            "",
            "A Diffusion Forcing planner: near future certain, far future still noise.",
            "",
            *lines,
            "",
            "  dfplanner COMMAND --help says more; dfplanner --version says which this is.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (by default the process's own) and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if args[0] == "--version":
        print(__version__)
        return 0
    name = args[0]
    if name not in COMMANDS:
        return _fail(f"no command is called {name!r}; known ones are {', '.join(COMMANDS)}")
    from dfplanner.types import DFPlannerError

    if "DISPLAY" not in os.environ:  # MuJoCo looks at this when it is imported
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        importlib.import_module(f"dfplanner.cli.{name}").run(args[1:])
        sys.stdout.flush()
    except DFPlannerError as error:
        return _fail(error)
    except BrokenPipeError:  # the reader, `head` say, has seen enough; nothing more may be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(error)
    except KeyboardInterrupt as interruption:
        _fail(interruption if str(interruption) else "stopped")
        return 130
    return 0


def _fail(reason: object) -> int:
    """One line on stderr, whatever line breaks the reason holds."""
    print(f"dfplanner: {' '.join(str(reason).split())}", file=sys.stderr)
    return 2
