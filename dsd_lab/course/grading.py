"""Grade a folder of submitted notebooks: each in a process of its own, under limits."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat

from ..checks import at_least
from ..files import expanded
from .exercises import EXERCISES, RECORD
from .handout import EXERCISE, tags

LARGEST = 50 * 2**20  # bytes of a notebook
LONGEST = 200  # letters of a remark
# its own network (none), and its own processes, which end with it and see no others
ISOLATED = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")


class Limits(NamedTuple):
    """For one submission: seconds of the clock, and memory in MB."""

    seconds: int = 120
    megabytes: int = 4000


class Grade(NamedTuple):
    """A submission: its path in the folder, what `check` last said of each exercise, as number ->
    "right" or "not yet: ..." with the hint, and a remark if it did not run to its end.
    """

    submission: str
    answers: dict[str, str]
    remark: str = ""

    @property
    def right(self) -> int:
        return sum(answer == "right" for answer in self.answers.values())

    @property
    def points(self) -> int:
        return sum(EXERCISES[n].points for n, answer in self.answers.items() if answer == "right")


@cache
def isolation() -> tuple[str, ...]:
    """The command that cuts a submission off from the network and from other processes; empty where
    the system has none.
    """
    try:
        works = subprocess.run([*ISOLATED, "true"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        works = False
    return ISOLATED if works else ()


def without() -> list[str]:
    """What this system can't keep a submission from: in words, for the teacher."""
    missing = [] if isolation() else ["cutting submissions off from the network and each other"]
    if sys.platform != "linux":
        missing.append("a limit on their memory and their files that holds")
    return missing


def cells_of(content: bytes) -> list[str]:
    """The code to run: from the first cell tagged "exercise" on, so that the lesson above need not
    be; of a notebook that has lost its tags, all. Raises ValueError for what is no notebook.
    """
    try:
        notebook = nbformat.reads(content.decode("utf-8-sig"), as_version=4)
        cells = list(notebook.cells)
        first = next((k for k, cell in enumerate(cells) if EXERCISE in tags(cell)), 0)
        return [str(cell.source) for cell in cells[first:] if cell.cell_type == "code"]
    except Exception as error:  # nbformat raises many kinds for what is damaged
        raise ValueError("no notebook, or damaged") from error


def answers_in(place: Path) -> dict[str, str]:
    """The last verdict of each exercise in a file of them; lines that are none are left out."""
    answers = {}
    text = place.read_text(encoding="utf-8", errors="replace") if place.is_file() else ""
    for line in text.splitlines():
        try:
            verdict = json.loads(line)
            number, right = verdict["number"], verdict["right"] is True
            remark = " ".join(str(verdict["text"]).split())[:LONGEST]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if number in list(EXERCISES):
            answers[number] = "right" if right else f"not yet: {remark}"
    return answers


def run_apart(cells: list[str], limits: Limits) -> tuple[dict[str, str], str]:
    """What `check` says in a process that runs these cells, and a remark on how it ended."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder, verdicts = Path(place), Path(place) / "verdicts"
        (folder / "cells.json").write_text(json.dumps(cells), encoding="utf-8")
        own = {RECORD: str(verdicts), "IPYTHONDIR": place, "MPLBACKEND": "agg"}
        process = subprocess.Popen(
            [*isolation(), sys.executable, "-m", "dsd_lab.course.submission"]
            + [str(folder / "cells.json"), str(limits.megabytes)],
            cwd=place,
            env=os.environ | own | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # however much it prints
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = process.wait(limits.seconds)
            remark = "" if status == 0 else "ended early"
        except subprocess.TimeoutExpired:
            remark = f"stopped after {limits.seconds} s"
        finally:
            stop(process)
        return answers_in(verdicts), remark


def stop(process: subprocess.Popen) -> None:
    """End a process and what it has started, where that has not left its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, OSError):  # Windows; nobody is left
        process.kill()
    process.wait()


def read_submissions(folder: str | Path) -> dict[str, bytes]:
    """The notebooks under a folder: path in it -> content, read before any of them is run. Raises
    ValueError if there are none.
    """
    folder = expanded(folder)
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()[: LARGEST + 1]
        for path in sorted(folder.rglob("*.ipynb"))
        if path.is_file() and ".ipynb_checkpoints" not in path.parts
    }
    if not found:
        raise ValueError(f'no notebooks (*.ipynb) in "{folder}"')
    return found


def grade(
    folder: str | Path, limits: Limits = Limits(), progress: Callable[[str], None] = lambda _: None
) -> list[Grade]:
    """Grade all notebooks under a folder, in the order of their paths.

    Each runs in a process of its own, in an empty folder that is thrown away, so one that loops,
    prints, raises or is damaged costs no other its grade. `check` judges inside that process: it is
    a help in marking, no proof against somebody who sets out to deceive it.
    progress: told each path before it is run. Raises ValueError if there are no notebooks, or a
    limit is not a positive int.
    """
    at_least("seconds", limits.seconds)
    at_least("megabytes", limits.megabytes)
    grades = []
    for name, content in read_submissions(folder).items():
        progress(name)
        try:
            if len(content) > LARGEST:
                raise ValueError(f"larger than {LARGEST // 2**20} MB")
            grades.append(Grade(name, *run_apart(cells_of(content), limits)))
        except ValueError as error:
            grades.append(Grade(name, {}, str(error)))
    return grades


def columns(grades: Iterable[Grade]) -> list[str]:
    """The exercises of each lesson of which any was answered."""
    lessons = {number[:2] for each in grades for number in each.answers}
    return [number for number in EXERCISES if number[:2] in lessons]


def as_csv(grades: list[Grade]) -> str:
    """The table for a spreadsheet: a submission a row, an exercise a column, empty if not asked."""
    text, numbers = io.StringIO(), columns(grades)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["submission", "points", "right", *numbers, "remark"])
    for each in grades:
        answers = [each.answers.get(number, "") for number in numbers]
        writer.writerow([each.submission, each.points, each.right, *answers, each.remark])
    return text.getvalue()
