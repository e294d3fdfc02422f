"""`python -m dsd_lab.bench`: how long things take here; see `dsd_lab.studies.bench`."""

from .command import run_module
from .studies.bench import main

if __name__ == "__main__":
    run_module(main)
