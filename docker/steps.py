"""Runs a Dockerfile's steps where there is no Docker: in a folder, with the Python and the tools of this machine.

    python docker/steps.py docker/cpu.Dockerfile out/image --build-arg TORCH_INDEX=

What RUN, COPY, WORKDIR, ENV and ARG say is done, in order, stage after stage, with the .dockerignore; the last stage's
USER, HEALTHCHECK, ENTRYPOINT and CMD are noted. Not done: FROM (there is no base image, but this machine), USER, a RUN
with apt-get, and walls: a step sees this machine, so all that a Dockerfile writes must lie under its ``ARG PREFIX``,
which is put into the folder. So it shows that the steps fit together and what they make works, not what a base lacks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Stage:
    """What a stage's steps left behind; ``env`` is that of its processes, ``args`` are its build arguments."""

    name: str
    env: dict[str, str]
    args: dict[str, str] = field(default_factory=dict)
    workdir: Path = Path("/")
    user: str = ""
    healthcheck: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The (KEYWORD, rest) of a Dockerfile, comments left out and continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        keyword, _, rest = line.strip().partition(" ")
        yield keyword.upper(), rest.strip()


def ignored(path: str, patterns: Sequence[str]) -> bool:
    """Whether a .dockerignore keeps ``path`` (relative, with slashes) out: the last pattern that fits decides."""
    verdict = False
    for pattern in patterns:
        body = pattern.lstrip("!").strip("/")
        body = re.escape(body).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{body}(/.*)?", path):
            verdict = not pattern.startswith("!")
    return verdict


def context(root: Path) -> list[str]:
    """The files of a build's context, relative to ``root``."""
    lines = (root / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    # What no pattern lets in is not looked through: environments and data are large.
    let_in = {pattern[1:].partition("/")[0] for pattern in patterns if pattern.startswith("!")}
    tops = [top for top in root.iterdir() if top.name in let_in or not ignored(top.name, patterns)]
    files = (path for top in tops for path in ([top] if top.is_file() else top.rglob("*")))
    names = (path.relative_to(root).as_posix() for path in files if path.is_file())
    return sorted(name for name in names if not ignored(name, patterns))


def build(dockerfile: Path, folder: Path, build_args: Mapping[str, str], python: Path | None = None) -> Stage:
    """Run the steps of ``dockerfile`` into ``folder``, new; ``python``: the image's, by default this process's.

    Raises ValueError on an instruction that is not known here or writes elsewhere, CalledProcessError on a failed RUN.
    """
    return _Builder(folder, dict(build_args), python or Path(sys.base_prefix) / "bin" / "python3").build(
        dockerfile.read_text()
    )


class _Builder:
    def __init__(self, folder: Path, build_args: dict[str, str], python: Path) -> None:
        self.folder, self.here, self.python = folder.resolve(), folder.resolve() / "stage", python
        self.build_args = {**build_args, "PREFIX": str(self.here / "prefix")}
        self.stage = Stage("", {})

    def build(self, text: str) -> Stage:
        for keyword, rest in instructions(text):
            step = getattr(self, f"_{keyword.lower()}", None)
            if step is None:
                raise ValueError(f"{keyword} is not an instruction that docker/steps.py knows; teach it")
            step(rest)
        return self.stage

    def _from(self, rest: str) -> None:
        """A stage begins in an empty folder; the last one's is put aside, for COPY --from."""
        if self.stage.name:
            self.here.rename(self.folder / self.stage.name)
        (self.here / "bin").mkdir(parents=True)
        for name in ("python", "python3"):
            (self.here / "bin" / name).symlink_to(self.python)
        name = rest.split(" AS ")[1] if " AS " in rest else "final"
        # A virtual environment this runs in is not the image's.
        kept = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH")}
        env = {**kept, "PATH": f"{self.here / 'bin'}:{os.environ['PATH']}"}
        self.stage = Stage(name, env, workdir=self.here, skipped=self.stage.skipped)

    def _arg(self, rest: str) -> None:
        name, _, default = rest.partition("=")
        self.stage.args[name] = self.build_args.get(name, default)

    def _env(self, rest: str) -> None:
        words = [word.partition("=") for word in shlex.split(rest)]
        self.stage.env |= {name: self._expanded(value) for name, _, value in words}

    def _workdir(self, rest: str) -> None:
        place = Path(self._expanded(rest))
        # A working directory that every system has, such as /tmp, is not made.
        self.stage.workdir = place if place.is_dir() else self._inside(place)
        self.stage.workdir.mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str) -> None:
        words = shlex.split(self._expanded(rest))
        source = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
        *wanted, to = [word for word in words if not word.startswith("--")]
        target = self._inside(self.stage.workdir / to)
        if source is not None:  # the other stage had what is now aside where this stage has its own
            for path in wanted:
                aside = self.folder / source / self._inside(Path(path)).relative_to(self.here)
                shutil.copytree(aside, target, symlinks=True, dirs_exist_ok=True, copy_function=os.link)
            return
        for path in wanted:
            found = [f for f in context(ROOT) if path == "." or f == path or f.startswith(f"{path}/")]
            if not found:
                raise ValueError(f"COPY {path}: nothing of that name is in the build's context; see .dockerignore")
            for name in found:  # of a folder its contents are copied; a file gets another name where none ends in /
                inside = name if path == "." else name[len(path) + 1 :]
                place = target / (inside or (Path(name).name if to.endswith("/") else ""))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, place)

    def _run(self, rest: str) -> None:
        if "apt-get" in rest:
            self.stage.skipped.append(f"RUN {rest}")
            return
        print(f"RUN {rest}", flush=True)
        env = {**self.stage.args, **self.stage.env}
        subprocess.run(["/bin/sh", "-c", rest], cwd=self.stage.workdir, env=env, check=True)

    def _user(self, rest: str) -> None:
        self.stage.user = rest

    def _healthcheck(self, rest: str) -> None:
        self.stage.healthcheck = _words(rest.partition("CMD ")[2])

    def _entrypoint(self, rest: str) -> None:
        self.stage.entrypoint = _words(rest)

    def _cmd(self, rest: str) -> None:
        self.stage.cmd = _words(rest)

    def _note(self, rest: str) -> None:
        """Changes nothing that can be seen here."""

    _label = _expose = _stopsignal = _note

    def _expanded(self, text: str) -> str:
        known = {**self.stage.args, **self.stage.env}
        return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda m: known.get(m[1] or m[2], ""), text)

    def _inside(self, path: Path) -> Path:
        if not path.is_relative_to(self.here):
            raise ValueError(f"a step writes to {path}, which would be this machine's; put it under $PREFIX")
        return path


def _words(text: str) -> list[str]:
    """An exec form's words; the shell form is given to a shell, as Docker does."""
    return json.loads(text) if text.startswith("[") else ["/bin/sh", "-c", text]


def main() -> int:
    """Build, and say what a container of it would run; see the module."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--python", type=Path, help="the image's Python; by default this one")
    args = parser.parse_args()
    pairs = dict(pair.partition("=")[::2] for pair in args.build_arg)
    stage = build(args.dockerfile, args.folder, pairs, args.python)
    print(f"PATH={stage.env['PATH']}", shlex.join([*stage.entrypoint, *stage.cmd]))
    for step in stage.skipped:
        print(f"not done: {step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
