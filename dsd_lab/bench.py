"""`python -m dsd_lab.bench`: how long things take here; see `dsd_lab.studies.bench`."""

import sys

from .studies.bench import main

if __name__ == "__main__":
    main(sys.argv[1:])
