"""``python -m dfplanner``, as in ``torchrun --nproc-per-node 2 -m dfplanner train ...``."""

import sys

from dfplanner.cli import main

if __name__ == "__main__":
    sys.exit(main())
