"""Run one submitted notebook's cells in this process, under limits: `dsd-lab grade` starts it.

    python -m dsd_lab.course.submission CELLS.json MEGABYTES

CELLS.json: a list of sources, run in order as in a notebook; one that raises stops no other. The
verdicts are written by `check` itself, as they come, so that what ends the process early leaves
those before it.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

LARGEST_FILE = 64 * 2**20  # bytes that a submission may write into one file


def limit(megabytes: int) -> None:
    """Keep this process, and what it starts, from taking more memory, and from large files, as far
    as the system can: macOS refuses some limits, Windows has none.
    """
    try:
        import resource
    except ImportError:
        return
    wanted = {"RLIMIT_FSIZE": LARGEST_FILE, "RLIMIT_CORE": 0}
    wanted["RLIMIT_DATA" if sys.platform == "linux" else "RLIMIT_AS"] = megabytes * 2**20
    for name, most in wanted.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (most, most))


def run(cells: list[str]) -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    for source in cells:
        shell.run_cell(source)


if __name__ == "__main__":
    limit(int(sys.argv[2]))
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    os._exit(0)  # threads that never end, and what was registered for the exit, wait for nobody
