"""Pictures of the simulation from a thread of their own: drawn by MuJoCo where GL is, the ball's by OpenCV alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import cv2
import mujoco
import numpy as np

from dfplanner_envs.arm.limits import Floats
from dfplanner_robot.nodes.machines import Machine
from dfplanner_robot.nodes.ticking import OTHERS, prioritised

SIZE = 240, 320
"""Height and width in pixels."""
HZ = 10.0


class Camera:
    """Draws what ``qpos`` says, writes ``words`` on it and hands it to ``show``; if it cannot, a sentence instead."""

    def __init__(
        self,
        machine: Machine,
        qpos: Callable[[], Floats],
        words: Callable[[], str],
        show: Callable[[np.ndarray | str], None],
    ) -> None:
        self._machine, self._qpos, self._words, self._show = machine, qpos, words, show
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No picture comes after this."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        prioritised(OTHERS)
        try:
            draw = self._drawn() if self._machine.maze is None else self._painted()
        except Exception as e:  # a GL that is absent shows in many ways
            self._show(f"no pictures: MuJoCo cannot draw here ({e!r}); see its page on MUJOCO_GL")
            return
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / HZ, time.monotonic())
            picture = np.ascontiguousarray(draw(self._qpos()))
            for colour, width in (((255, 255, 255), 4), ((30, 30, 30), 1)):
                cv2.putText(picture, self._words(), (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, colour, width, cv2.LINE_AA)
            self._show(picture)

    def _drawn(self) -> Callable[[Floats], np.ndarray]:
        """By MuJoCo; a GL context belongs to the thread that made it."""
        model = self._machine.arm.model
        data, renderer = mujoco.MjData(model), mujoco.Renderer(model, *SIZE)  # pyright: ignore
        for flag in ("mjRND_SHADOW", "mjRND_REFLECTION"):
            renderer.scene.flags[int(getattr(mujoco.mjtRndFlag, flag))] = 0  # pyright: ignore
        camera = 0 if model.ncam else -1

        def draw(qpos: Floats) -> np.ndarray:
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)  # pyright: ignore
            renderer.update_scene(data, camera)
            return renderer.render()

        draw(self._qpos())
        return draw

    def _painted(self) -> Callable[[Floats], np.ndarray]:
        """The maze from above, which needs no GL."""
        from dfplanner_envs.render import paint

        maze = self._machine.maze
        assert maze is not None
        return lambda qpos: paint(maze, qpos, np.array(maze.goal, np.float64))
