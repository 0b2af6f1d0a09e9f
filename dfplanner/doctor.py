"""What this machine has, what is missing, and the command that would bring it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dfplanner import __version__
from dfplanner.types import DFPlannerError

Row = tuple[str, str, str]

_CORE = ("torch", "mujoco", "gymnasium", "numpy")
_OPTIONAL = {  # import name: (distribution, our extra, what it is for)
    "minari": ("minari", "minari", "to read and write Minari data sets"),
    "d4rl": ("d4rl", "d4rl", "to compare with D4RL's own code in tests"),
    "tensorboard": ("tensorboard", "tensorboard", "to watch training in TensorBoard"),
    "onnxruntime": ("onnxruntime", "onnx", "to run exported models"),
    "websockets": ("websockets", "client", "to talk to a planner's server"),
    "stable_baselines3": ("stable-baselines3", "sb3", "to evaluate policies with Stable-Baselines3"),
}
_GL_PACKAGES = {
    "egl": "apt-get install libegl1 libgl1-mesa-dri libopengl0, then export MUJOCO_GL=egl",
    "osmesa": "apt-get install libosmesa6, then export MUJOCO_GL=osmesa",
}
_PROBE_TIMEOUT_S = 30.0


def report() -> list[Row]:
    """Rows (what, found, advice); the advice is empty where nothing is to be done. Raises nothing."""
    probes = (_versions, _devices, _compiler, _rendering, _video, _ros, _optional, _checkpoints)
    return [row for probe in probes for row in probe()]


def main() -> None:
    """Print the report, the advice below what it is about."""
    rows = report()
    width = max(len(what) for what, _, _ in rows)
    for what, found, advice in rows:
        print(f"{what:<{width}}  {found}")
        if advice:
            print(f"{'':<{width}}  -> {advice}")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _versions() -> Iterator[Row]:
    yield "dfplanner", __version__, ""
    yield "python", f"{platform.python_version()} ({sys.executable}), {platform.platform()}", ""
    for name in _CORE:
        version = _version(name)
        yield name, version or "not installed", "" if version else "pip install dfplanner"


def _devices() -> Iterator[Row]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield "device", f"cuda: {', '.join(names)}", ""
    else:
        built = torch.version.cuda
        why = f"PyTorch is built for CUDA {built} but sees no GPU" if built else "PyTorch is a build for CPUs"
        yield "device", f"cpu ({why})", ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    advice = "" if threads == 1 else "small models plan fastest on one thread: export OMP_NUM_THREADS=1"
    yield "threads", f"{threads} for torch, {cores} cores", advice


def _compiler() -> Iterator[Row]:
    found = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "g++", "clang++", "c++"))), None)
    advice = "" if found else "only torch.compile needs one: apt-get install g++"
    yield "C++ compiler", found or "none", advice


def _gl_works(backend: str) -> bool:
    """Whether MuJoCo draws with this backend; in a process of its own, for a bad driver takes it down."""
    code = (
        "import mujoco\n"
        "m = mujoco.MjModel.from_xml_string('<mujoco><worldbody><light/></worldbody></mujoco>')\n"
        "r = mujoco.Renderer(m, 32, 32)\n"
        "r.update_scene(mujoco.MjData(m))\n"
        "assert r.render().shape == (32, 32, 3)"
    )
    env = {**os.environ, "MUJOCO_GL": backend} if backend else dict(os.environ)
    try:
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.returncode == 0


def _rendering() -> Iterator[Row]:
    chosen = os.environ.get("MUJOCO_GL", "")
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "none"
    setting = f"MUJOCO_GL={chosen or '(unset)'}, display {display}"
    if _gl_works(""):
        yield "rendering", f"works ({setting})", ""
        return
    working = [backend for backend in _GL_PACKAGES if backend != chosen and _gl_works(backend)]
    advice = f"export MUJOCO_GL={working[0]}" if working else "; or ".join(_GL_PACKAGES.values())
    yield "rendering", f"does not work ({setting})", advice


def _video() -> Iterator[Row]:
    ffmpeg = shutil.which("ffmpeg")
    yield "ffmpeg", ffmpeg or "none (not needed: OpenCV writes the videos)", ""
    works, found = _mp4()
    advice = "" if works else "pip install --force-reinstall opencv-python-headless; GIFs work without"
    yield "MP4", found, advice


def _mp4() -> tuple[bool, str]:
    """Whether OpenCV writes an MP4 here, tried on a tiny one."""
    try:
        import cv2
        import numpy as np
    except ImportError as error:
        return False, f"OpenCV cannot be imported ({error})"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
        for _ in range(3):
            writer.write(np.zeros((64, 64, 3), np.uint8))
        writer.release()
        frames = cv2.VideoCapture(str(path)).read()[0]
    return frames, f"{'works' if frames else 'does not work'} (OpenCV {cv2.__version__})"


def _ros() -> Iterator[Row]:
    distro = os.environ.get("ROS_DISTRO", "")
    if importlib.util.find_spec("rclpy") is not None:
        version = _version("rclpy") or _version("ros-jazzy-rclpy") or "version unknown"
        yield "ROS 2", f"rclpy {version}" + (f", {distro}" if distro else ""), ""
    elif distros := sorted(p.name for p in Path("/opt/ros").glob("*") if (p / "setup.bash").exists()):
        yield "ROS 2", f"{', '.join(distros)}, not sourced", f"source /opt/ros/{distros[-1]}/setup.bash"
    else:
        yield "ROS 2", "none", "only the robot nodes need it: install ROS 2 Jazzy and source its setup.bash"


def _optional() -> Iterator[Row]:
    for module, (distribution, extra, purpose) in _OPTIONAL.items():
        if importlib.util.find_spec(module) is not None:
            yield module, _version(distribution) or "version unknown", ""
        else:
            yield module, "not installed", f'{purpose}: pip install "dfplanner[{extra}]"'


def _checkpoints() -> Iterator[Row]:
    from dfplanner.checkpoint import bundled, describe

    good, bad = [], []
    for name, path in bundled().items():
        try:
            describe(path)
            good.append(name)
        except DFPlannerError as error:
            bad.append(str(error))
    advice = f"{'; '.join(bad)}; install dfplanner again" if bad else ""
    if not good and not bad:
        advice = "this installation carries none: install dfplanner again, or make one with dfplanner train"
    yield "checkpoints", ", ".join(good) or "none", advice


if __name__ == "__main__":
    main()
