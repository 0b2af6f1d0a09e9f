"""Episodes in memory and on disk (HDF5, Minari)."""

from dfplanner.data.episodes import Episodes

__all__ = ["Episodes"]
