"""`python -m dsd_lab.worlds.build_icons --check`: see `dsd_lab.worlds.build.icons`."""

import sys

from .build.icons import main

if __name__ == "__main__":
    sys.exit(main())
