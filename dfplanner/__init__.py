"""dfplanner: a Diffusion Forcing planner and its receding-horizon controller."""

__version__ = "0.1.0"
