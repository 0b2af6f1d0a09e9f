"""Episodes in memory and on disk (HDF5, Minari)."""

from pathlib import Path

from dfplanner.data.episodes import Episodes
from dfplanner.data.hdf5 import d4rl_cache, read_hdf5, write_hdf5
from dfplanner.data.minari import read_minari, write_minari
from dfplanner.types import DFPlannerError

__all__ = [
    "Episodes",
    "d4rl_cache",
    "load_episodes",
    "read_hdf5",
    "read_minari",
    "write_hdf5",
    "write_minari",
]


def load_episodes(source: str | Path) -> Episodes:
    """The episodes in an HDF5 file, in a Minari folder, in D4RL's own cache by name, or in Minari's by name.

    Raises DFPlannerError that says what was looked for.
    """
    path = Path(source)
    if path.is_dir():
        return read_minari(path)
    if path.is_file() or path.suffix in (".hdf5", ".h5"):
        return read_hdf5(path)
    if (cached := d4rl_cache(str(source))) is not None:
        return read_hdf5(cached)
    try:
        return read_minari(str(source))
    except DFPlannerError as e:
        raise DFPlannerError(f"{str(source)!r} is no file, no folder and nothing in D4RL's cache, and {e}") from e
