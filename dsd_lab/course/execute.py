"""Re-execute a notebook and save it, whole or not at all."""

import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from ..files import write_file


def execute(path: Path) -> float:
    """Run all cells from top to bottom in a new kernel and save the notebook; returns the seconds
    it took.

    Widget state and cell timings are left out: they differ at each run and a reader never sees
    them. In the place of a widget its still is kept: its model ends with the kernel.
    Raises nbclient's CellExecutionError and leaves the file as it was if a cell fails.
    """
    # as in the tests: facts may differ between 1 and 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    notebook, began = nbformat.read(path, as_version=4), time.perf_counter()
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # it warns of its sockets, which are local
        record_timing=False,
        store_widget_state=False,
    ).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", ()):
                output.data.pop("application/vnd.jupyter.widget-view+json", None)
    write_file(path, nbformat.writes(notebook) + "\n")
    return time.perf_counter() - began
