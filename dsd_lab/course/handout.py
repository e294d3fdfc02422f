"""The lessons as they are handed out: without solutions and outputs."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ..files import prepare_folder, write_file

SOLUTION, EXERCISE = "solution", "exercise"  # tags of cells


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags, none if it has lost them."""
    return list(cell.get("metadata", {}).get("tags", ()))


def without_solutions(notebook: NotebookNode) -> NotebookNode:
    """The notebook without the cells tagged "solution", and with nothing executed."""
    notebook.cells = [cell for cell in notebook.cells if SOLUTION not in tags(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def hand_out(lessons: Iterable[Path], folder: Path) -> list[Path]:
    """Write the lessons without solutions and outputs into a folder, beside the pages that they
    link to; returns the notebooks' paths.

    Raises ValueError if the folder is one that a lesson lies in, which would be overwritten, or
    cannot be written.
    """
    lessons, folder = list(lessons), prepare_folder(folder)
    for lesson in lessons:
        if lesson.parent.resolve() == folder.resolve():
            raise ValueError(f'"{folder}" holds the lessons themselves; choose another folder')
    written = []
    for lesson in lessons:
        bare = without_solutions(nbformat.read(lesson, as_version=4))
        written.append(write_file(folder / lesson.name, nbformat.writes(bare) + "\n"))
    for page in {page for lesson in lessons for page in lesson.parent.glob("*.md")}:
        shutil.copyfile(page, folder / page.name)
    return written
