"""The exercises as assignments for otter-grader: a folder a lesson, with its notebook and tests.

otter-grader is needed by who uses them, not by who writes them. Each folder is what its `otter
check`, `otter generate -t tests` and in-notebook `grader.check("q03_2")` read: a test file an
exercise, in its exception-based format, which asks `dsd_lab.course.exercises.check`.
Source: https://otter-grader.readthedocs.io, version 7.
"""

import ast
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from ..files import prepare_folder, write_file
from .exercises import EXERCISES
from .handout import EXERCISE, tags, without_solutions

BEGIN = """\
# Initialize Otter
import otter

grader = otter.Notebook("{notebook}")"""

TEST = """\
from otter.test_files import test_case

OK_FORMAT = False

name = "{name}"
points = {points}


@test_case()
def right({answer}):
    from dsd_lab.course.exercises import check

    verdict = check("{number}", {answer})
    assert verdict.right, verdict.text
"""


def asked(cell: NotebookNode) -> tuple[str, str] | None:
    """The exercise that a cell ends with, `check("03.2", gradient)`, and what the answer is called
    there; None if it does not.
    """
    last = ast.parse(cell.source).body[-1:] if EXERCISE in tags(cell) else []
    match last:
        case [ast.Expr(ast.Call(ast.Name("check"), [ast.Constant(number), ast.Name(answer)]))]:
            return number, answer
    return None


def assignment(notebook: NotebookNode, name: str) -> tuple[NotebookNode, dict[str, str]]:
    """The exercises of a lesson as an otter notebook, and its test files, name -> text. What is not
    checked is left out: the lesson above, solutions and the questions without a check.
    """
    cells = without_solutions(notebook).cells
    first = next((k for k, cell in enumerate(cells) if EXERCISE in tags(cell)), len(cells))
    heads = [k for k, cell in enumerate(cells[:first]) if cell.cell_type == "markdown"]
    kept, tests = [new_code_cell(BEGIN.format(notebook=name))], {}
    waiting = cells[heads[-1] : first] if heads else []
    for cell in cells[first:]:
        waiting.append(cell)
        found = asked(cell)
        if found:
            number, answer = found
            test, points = f"q{number.replace('.', '_')}", EXERCISES[number].points
            tests[test] = TEST.format(name=test, points=points, number=number, answer=answer)
            kept += [*waiting, new_code_cell(f'grader.check("{test}")')]
            waiting = []
    notebook.cells = kept
    return notebook, tests


def hand_out_otter(lessons: Iterable[Path], folder: Path) -> list[Path]:
    """Write the lessons' exercises as otter-grader assignments, each into a folder of the lesson's
    name; lessons without any are left out. Returns the notebooks' paths.

    Raises ValueError if the folder cannot be written.
    """
    folder, written = prepare_folder(folder), []
    for lesson in lessons:
        notebook, tests = assignment(nbformat.read(lesson, as_version=4), lesson.name)
        if tests:
            place = prepare_folder(folder / lesson.stem)
            for name, text in tests.items():
                write_file(prepare_folder(place / "tests") / f"{name}.py", text)
            written.append(write_file(place / lesson.name, nbformat.writes(notebook) + "\n"))
    return written
