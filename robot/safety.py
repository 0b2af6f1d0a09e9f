"""The guard between plans and the arm: plans are checked, a stop is always possible, and silence brakes.

It runs next to the arm, at a fixed rate, in another process than the planner. What it commands is one curve with
continuous acceleration: a plan, joined to the motion, or the time-optimal brake. A plan is followed only if at each of
its ticks the brake from there keeps the limits too; so there is always a way to rest, and the guard needs nobody to
take it. Where a checker of collisions is given, that way is tested before each tick as well.

Limits hold for the curve, and so for the differences of commands at any rate: a difference is a mean of the derivative.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dfplanner.types import DFPlannerError
from dfplanner_robot.brake import brake
from dfplanner_robot.checks import Refused, Surroundings, away, clipped, conform, from_rest, in_time, inside, joined
from dfplanner_robot.filling import filled
from dfplanner_robot.limits import commanded, including
from dfplanner_robot.sensing import Senses
from dfplanner_robot.settings import Command, JointReading, SafetySettings, Verdict
from dfplanner_robot.states import EXPLAINED, SEVERITY, TABLE, Clamp, Event, Mode, Outcome, Reason
from dfplanner_robot.trajectory import Floats, JointTrajectory, since, with_accelerations

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

__all__ = ["Command", "Guard", "JointReading", "Mode", "Outcome", "Reason", "SafetySettings", "Surroundings", "Verdict"]

SOUND = 3
"""Good readings in a row, after which an arm counts as sound."""
STILL = 0.05
"""rad/s below which a measured joint counts as at rest when the guard starts."""
CATCH_UP_S = 0.002
"""Of a lag of the ticks behind the clock, so much is made up for with each plan."""


class Guard:
    """Joint readings and plans in, commands out. Not thread-safe: one loop calls ``tick`` and hands in plans between.

    ``limits`` are the arm's own. Times are seconds of one clock, the one that stamps readings and plans. ``counts``:
    how often each reason, clamp and outcome of a plan came up; ``reordered``: plans with joints in another order.
    """

    def __init__(
        self, limits: JointLimits, settings: SafetySettings | None = None, surroundings: Surroundings | None = None
    ) -> None:
        self.limits, self.settings = limits, settings or SafetySettings()
        self.surroundings = surroundings or Surroundings()
        s = self.settings
        self._narrow = commanded(limits, s.velocity_share, s.acceleration_share, s.jerk_share, s.inset_rad)
        self.allowed = self._narrow
        """The limits that commands keep."""
        self.senses = Senses(limits, s)
        self.counts: Counter[str] = Counter()
        self.mode = Mode.IDLE
        self.reason: Reason | None = None
        """Why it brakes, waits or last braked."""
        self.detail = ""
        """The same, in a sentence."""
        self.transitions: list[tuple[float, Mode, Event, Mode]] = []
        """The last changes of mode: when, from, by what, to."""
        self._now: float | None = None
        self._free = bool(self.surroundings.obstacles is None and self.surroundings.box is None)
        self._clear()

    def _clear(self) -> None:
        self._origin, self._tau, self._worst, self._rested = 0.0, 0.0, Mode.READY, 0.0
        self._path = JointTrajectory(self.limits.names, 0.0, np.zeros(1), np.zeros((1, len(self.limits))))
        self._curve = self._path.curve
        self._clamps: tuple[Clamp, ...] = ()
        self._planned: float | None = None
        self._heard, self._last_stamp = -np.inf, None
        self._operator = False

    # What the operator asks

    def start(self, now: float) -> None:
        """Begin to hold the arm where it is. Raises DFPlannerError unless it is read, at rest and within its limits."""
        self._expect(Event.START, "start")
        self._sound(now)
        q, v = self.senses.q, self.senses.v
        assert q is not None and v is not None
        if np.abs(v).max() > STILL:
            raise DFPlannerError(f"the arm moves at {np.abs(v).max():.2f} rad/s; bring it to rest before starting")
        self._clear()
        self._origin = now
        self.allowed = including(self._narrow, q)
        self._hold(now, q)
        self._go(now, Event.START)

    def stop(self, now: float) -> None:
        """Brake, and hold until ``resume``."""
        if self.mode is not Mode.IDLE:
            self._operator = True
            self._halt(now, Reason.OPERATOR, "a stop was asked for")

    def resume(self, now: float) -> None:
        """Take plans again after a stop. Raises DFPlannerError in another mode, or while the arm is not sound."""
        self._expect(Event.RESUME, "resume")
        self._agrees(now)
        self._worst, self._operator = Mode.READY, False
        self._go(now, Event.RESUME)

    def reset(self, now: float) -> None:
        """Leave FAULT for STOPPED. Raises DFPlannerError in another mode, or while the arm is not sound."""
        self._expect(Event.RESET, "reset")
        self._agrees(now)
        self._worst, self._last_stamp = Mode.STOPPED, None
        self._go(now, Event.RESET)

    def release(self, now: float) -> None:
        """Command nothing any more; only at rest. Raises DFPlannerError while the arm moves: stop it first."""
        self._expect(Event.RELEASE, "release")
        self._go(now, Event.RELEASE)
        self._clear()

    # What comes from the planner

    def heartbeat(self, now: float) -> None:
        """The planner is alive."""
        self._heard = now

    def propose(self, now: float, trajectory: JointTrajectory, fill: bool = False) -> Verdict:
        """Take a plan, or refuse it and brake. It is followed from its stamp, or from the next tick if that is past.

        ``fill``: one with positions alone is given velocities first. Raises nothing, whatever comes.
        """
        if self.mode not in (Mode.READY, Mode.ACTIVE):
            return self.refuse(now, Reason.NOT_READY, f"no plan is taken while {self.mode.value}")
        try:
            path, clamps = self._vetted(now, trajectory, fill)
        except Refused as refusal:
            return self.refuse(now, refusal.reason, refusal.detail)
        except Exception as e:  # what cannot be checked has not passed
            return self.refuse(now, Reason.FORM, f"the plan cannot be checked ({type(e).__name__}: {e})")
        self._path, self._curve, self._clamps = path, path.curve, tuple(clamps)
        self._planned, self._heard, self._last_stamp = now, max(self._heard, now), trajectory.stamp
        self.reason, self.detail = None, ""
        self._go(now, Event.PLAN)
        outcome = Outcome.CLAMP if clamps else Outcome.PASS
        self.counts.update([outcome.value, *(c.value for c in clamps)])
        return Verdict(outcome, self._clamps)

    def refuse(self, now: float, reason: Reason, detail: str) -> Verdict:
        """Brake for a plan that failed a check."""
        self.counts.update([Outcome.BRAKE.value] + [reason.value] * (reason is Reason.NOT_READY))
        if reason is not Reason.NOT_READY:
            self._halt(now, reason, detail)
        return Verdict(Outcome.BRAKE, (), reason, detail)

    def _vetted(self, now: float, trajectory: JointTrajectory, fill: bool) -> tuple[JointTrajectory, list[Clamp]]:
        """The path from here on that a plan leads to, and what was changed on it; raises Refused."""
        s = self.settings
        if fill and self.senses.q is not None:
            trajectory = filled(trajectory, self.senses.q, self.allowed, s)
        new, reordered = conform(trajectory, self.limits.names, s)
        self.counts["reordered"] += reordered
        # A stamp of 0 is "now", as ros2_control reads it, after whatever came before.
        new, last = (replace(new, stamp=now), None) if new.stamp == 0.0 else (new, self._last_stamp)
        in_time(new, now, last, s)
        # Ticks count the time; what they lag behind the clock, plans are put off, and a little is made up each time.
        lag = (self._now if self._now is not None else now) - self._origin - self._tau
        new = replace(new, stamp=new.stamp - self._origin - lag + float(np.clip(lag, -CATCH_UP_S, CATCH_UP_S)))
        at = max(self._tau, new.stamp + float(new.times[0]))
        fit = with_accelerations(clipped(new, self.allowed, s))
        off = away(new, self._curve, self._tau, at, self.senses.q, s)
        if self.mode is Mode.READY:
            from_rest(new.curve.at(at).v)
        path, clamps = joined(self._path, fit, at, self.allowed, s)
        clamps += [Clamp.POSITION] * (fit.positions is not new.positions)
        if off > 0.05 * s.jump_rad and Clamp.BLENDED not in clamps:
            clamps.append(Clamp.BLENDED)
        path = since(path, self._tau)
        postures = inside(path, self._tau, self.allowed, s)
        self.surroundings.check(postures, s.step_rad)
        return path, clamps

    # What happens at each tick

    def tick(self, now: float, reading: JointReading | None = None) -> Command:
        """The command for this tick. ``reading``: the latest, if there is any; the same one again is no news."""
        self._clock(now)
        here = None if self.mode is Mode.IDLE else self._curve.at(self._tau)
        wrong = self.senses.check(now, reading, None if here is None else (here.q, here.v))
        if self.mode is Mode.IDLE:
            self.reason, self.detail = wrong or (None, "")
            return Command(self.mode, Outcome.BRAKE, now, reason=Reason.NOT_READY)
        if wrong is not None:
            self._halt(now, *wrong)
        self._watch(now)
        self._advance(now)
        return self._command(now)

    def ahead(self, seconds: float) -> JointTrajectory:
        """What will be commanded for so long from the last tick on, then a brake to rest: for a controller to execute.

        Stamped with that tick's time. Whoever is given this at each tick brakes by itself when the guard falls silent.
        Raises DFPlannerError before the first tick, and while IDLE.
        """
        if self._now is None or self.mode is Mode.IDLE:
            raise DFPlannerError("there is nothing to follow while idle; call start and tick first")
        t = self.settings.dt_s * np.arange(max(1, round(seconds / self.settings.dt_s)) + 1, dtype=np.float64)
        state = self._curve.at(np.minimum(self._tau + t, max(self._curve.end, self._tau)))
        way = brake(self.limits.names, self._now + t[-1], state.q[-1], state.v[-1], self.allowed, state.a[-1])
        assert way.velocities is not None and way.accelerations is not None
        parts = zip(state[:3], (way.positions, way.velocities, way.accelerations), strict=True)
        rows = (np.concatenate([first, then[1:]]) for first, then in parts)
        return JointTrajectory(self.limits.names, self._now, np.concatenate([t, t[-1] + way.times[1:]]), *rows)

    def lapse(self, now: float, way: JointTrajectory, gone_s: float) -> None:
        """Ticks were missed or the clock jumped: what moves is ``gone_s`` seconds along ``way``, to its stop."""
        if self.mode in (Mode.ACTIVE, Mode.BRAKING):
            self._halt(now, Reason.TICK_GAP, "ticks were missed, or the clock jumped")
            self._path = replace(way, stamp=self._tau - gone_s)
            self._curve = self._path.curve

    def _clock(self, now: float) -> None:
        before, self._now = self._now, now
        if before is not None and now < before:
            self.senses.forget()  # its stamps are of a time that has not come yet
        if before is None or self.mode is Mode.IDLE:
            return
        if now < before:
            self._halt(now, Reason.CLOCK_BACK, f"the clock went back by {before - now:.3f} s")
        elif now - before > self.settings.gap_s + self.settings.dt_s:
            self.senses.missed(now)
            self._halt(now, Reason.TICK_GAP, f"{now - before:.3f} s passed between two ticks")
        lag = now - self._origin - self._tau - self.settings.dt_s
        if self.mode is Mode.ACTIVE and abs(lag) > 2 * self.settings.gap_s:
            self._halt(now, Reason.TICK_GAP, f"the ticks are {lag:.3f} s behind the clock")

    def _watch(self, now: float) -> None:
        s = self.settings
        if self.mode is not Mode.ACTIVE or self._planned is None:
            return
        if s.plan_timeout_s is not None and now - self._planned > s.plan_timeout_s:
            self._halt(now, Reason.STALE, f"the last plan came {now - self._planned:.3f} s ago")
        elif s.heartbeat_timeout_s is not None and now - self._heard > s.heartbeat_timeout_s:
            self._halt(now, Reason.SILENT, f"the planner was last heard {now - self._heard:.3f} s ago")

    def _advance(self, now: float) -> None:
        """One tick on along the path, if from there on there is a way to rest."""
        tau = self._tau + self.settings.dt_s
        if self.mode is Mode.ACTIVE:
            if tau > self._curve.end and not self._curve.ends_at_rest():
                self._halt(now, Reason.ENDED, "the plan is over, and the arm still moves")
            elif not self._free and not self._way_out(tau):
                self._halt(now, Reason.BLOCKED, "from the next command on there would be no free way to rest")
        self._tau = tau
        if self.mode is Mode.ACTIVE and tau >= self._curve.end:
            self._hold(now, self._curve.q[-1])
            self._go(now, Event.ARRIVED)
        elif self.mode is Mode.BRAKING and tau >= self._curve.end:
            self._hold(now, self._curve.q[-1])
            self._rested = self._last_stamp = now  # plans from before continue a motion that is over
            self._go(now, (Event.RESTED, Event.RESTED_STOPPED, Event.RESTED_FAULT)[SEVERITY.index(self._worst)])
        elif self.mode not in (Mode.ACTIVE, Mode.BRAKING):
            self._tau = now - self._origin  # nothing moves: the ticks' time may be the clock's
            self._resume_alone(now)

    def _resume_alone(self, now: float) -> None:
        wait = self.settings.resume_after_s
        able = self.mode is Mode.STOPPED and not self._operator and self.senses.good >= SOUND
        if wait is not None and able and now - self._rested >= wait:
            self._worst = Mode.READY
            self._go(now, Event.RESUME)

    def _way_out(self, tau: float) -> bool:
        """Whether braking from the state at ``tau`` touches nothing."""
        q, v, a, _ = self._curve.at(tau)
        if np.abs(v).max() < 1e-6:
            return True  # the path itself is tested already
        way = brake(self.limits.names, tau, q, v, self.allowed, a).curve
        try:
            self.surroundings.check(way.at(np.linspace(way.start, way.end, 25)).q, self.settings.step_rad)
        except Refused:
            return False
        return True

    def _command(self, now: float) -> Command:
        q, v, a, _ = self._curve.at(self._tau)
        if self.mode in (Mode.READY, Mode.ACTIVE):
            clamps = self._clamps if self.mode is Mode.ACTIVE else ()
            return Command(self.mode, Outcome.CLAMP if clamps else Outcome.PASS, now, q, v, a, clamps)
        return Command(self.mode, Outcome.BRAKE, now, q, v, a, (), self.reason)

    def _halt(self, now: float, reason: Reason, detail: str) -> None:
        """Begin to brake, or note that there is another reason to."""
        severity = EXPLAINED[reason][1]
        if self.mode in (Mode.IDLE, Mode.FAULT):
            return
        if self.mode is Mode.STOPPED:
            if severity is Mode.FAULT:
                self._note(reason, detail, severity)
                self._go(now, Event.FAIL)
            return
        first = self.mode is not Mode.BRAKING
        if first or SEVERITY.index(severity) > SEVERITY.index(self._worst) or reason is Reason.OPERATOR:
            self._note(reason, detail, severity)
        if first:
            q, v, a, _ = self._curve.at(self._tau)
            self._path = brake(self.limits.names, self._tau, q, v, self.allowed, a)
            self._curve = self._path.curve
            self._go(now, Event.HALT)

    def _note(self, reason: Reason, detail: str, severity: Mode) -> None:
        self.counts[reason.value] += 1
        self.reason, self.detail = reason, detail
        self._worst = max(self._worst, severity, key=SEVERITY.index)

    def _hold(self, now: float, q: Floats) -> None:
        self._tau, self._clamps = now - self._origin, ()
        self._path = JointTrajectory(self.limits.names, self._tau, np.zeros(1), q[None].copy(), np.zeros((1, len(q))))
        self._curve = self._path.curve
        self._worst = self._worst if self.mode is Mode.BRAKING else Mode.READY

    def _go(self, now: float, event: Event) -> None:
        before, self.mode = self.mode, TABLE[self.mode, event]
        if before is not self.mode:
            self.transitions = [*self.transitions[-99:], (now, before, event, self.mode)]
        if event is Event.RESTED:
            self._worst = Mode.READY

    def _expect(self, event: Event, what: str) -> None:
        if (self.mode, event) not in TABLE:
            modes = " or ".join(mode.value for mode, e in TABLE if e is event)
            raise DFPlannerError(f"cannot {what} while {self.mode.value}; expected {modes}")

    def _sound(self, now: float) -> None:
        """Raises DFPlannerError unless good readings keep coming."""
        late = now - self.senses.stamp > self.settings.sensor_timeout_s
        if self.senses.q is None or self.senses.good < SOUND or late:
            raise DFPlannerError(
                f"{self.senses.good} sound readings came in a row; expected {SOUND} fresh ones: see the joint states"
            )

    def _agrees(self, now: float) -> None:
        self._sound(now)
        assert self.senses.q is not None
        off = np.abs(self.senses.q - self._curve.at(self._tau).q).max()
        if off > self.settings.jump_rad:
            raise DFPlannerError(f"the arm is {off:.3f} rad from what is held; release it and start anew")
