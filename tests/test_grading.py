"""Lessons handed out without solutions, and submissions graded, harmful ones among them."""

import csv
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from dsd_lab import cli
from dsd_lab.course import grading
from dsd_lab.course.grading import Grade, Limits, as_csv, cells_of, columns, grade
from dsd_lab.course.handout import hand_out, tags

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CHECK = "from dsd_lab.course.exercises import check"
RIGHT, WRONG = 'check("03.3", "c")', 'check("03.1", 0.5)'
SUBMISSIONS = {
    "good": [RIGHT, WRONG],
    "loops": [RIGHT, "import time\nwhile True: time.sleep(1)"],  # it costs no other test a core
    "raises and prints": [*("print('x' * 10**8)", "1 / 0", "syntax error", "input('?')"), RIGHT],
    "exits": [RIGHT, "import os; os._exit(3)"],
    "takes memory": [f"try: bytearray(10 * 2**30)\nexcept MemoryError: {RIGHT}"],
    "fills the disk": [f"try: open('big', 'wb').write(bytes(2**27))\nexcept OSError: {RIGHT}"],
    "kills its parent": [RIGHT, "import os, signal; os.kill(os.getppid(), signal.SIGTERM)"],
    "deletes others": [
        "import pathlib; [p.unlink() for p in pathlib.Path(PLACE).rglob('*.ipynb')]",
        RIGHT,
    ],
    "changes its mind": ['check("03.3", "a")', RIGHT, WRONG, 'check("03.1", 0.85)'],
    "network": ["import socket; socket.create_connection(('127.0.0.1', PORT), 2)\n" + RIGHT],
}


def notebook(cells, *marks):
    cells = [new_code_cell(source) for source in cells]
    for k in marks:
        cells[k].metadata["tags"] = ["exercise"]
    return nbformat.writes(new_notebook(cells=cells))


def submit(folder, name, content):
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.mark.slow
def test_a_harmful_submission_costs_no_other_its_grade(tmp_path):
    submissions = dict(SUBMISSIONS)
    if not grading.isolation():  # then it can, and that is this test
        del submissions["kills its parent"]
    if sys.platform != "linux":  # as `without` says
        del submissions["takes memory"], submissions["fills the disk"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name, cells in submissions.items():
            cells = [
                c.replace("PLACE", repr(str(tmp_path))).replace("PORT", str(port)) for c in cells
            ]
            # the loop with one that is graded after it, and all others
            part = "slow" if name in ("loops", "raises and prints") else "in"
            submit(tmp_path / part, name, notebook([CHECK, *cells]))
        submit(tmp_path / "in", "damaged", '{"cells": 3')
        submit(tmp_path / "in", "deleted all", notebook([]))
        with ThreadPoolExecutor(2) as beside:  # the others are graded while one loops
            limits = {"slow": Limits(45, 4000), "in": Limits(180, 4000)}
            graded = beside.map(lambda part: grade(tmp_path / part, limits[part]), limits)
            grades = {each.submission[:-6]: each for part in graded for each in part}
    assert set(grades) == {*submissions, "damaged", "deleted all"}
    for name in set(submissions) - {"network"}:
        assert grades[name].answers["03.3"] == "right", grades[name]
    if grading.isolation():
        assert grades["network"].answers == {}
    assert grades["good"].answers["03.1"].startswith("not yet: that is rho")
    assert grades["changes its mind"].answers == {"03.1": "right", "03.3": "right"}
    assert grades["loops"].remark == "stopped after 45 s"
    assert grades["exits"].remark == "ended early" and not grades["raises and prints"].remark
    assert grades["damaged"] == Grade("damaged.ipynb", {}, "no notebook, or damaged")
    assert grades["deleted all"].answers == {}


@pytest.mark.slow
def test_a_handed_out_lesson_is_graded_with_nothing_right(tmp_path):
    hand_out([path for path in LESSONS if "01" <= path.name < "05"], tmp_path)
    for each in grade(tmp_path):
        number = each.submission[:2]
        assert each.answers == {
            f"{number}.1": "not yet: there is no answer yet.",
            f"{number}.2": "not yet: it returned nothing; is there a `return`?",
            f"{number}.3": "not yet: there is no answer yet.",
        }


def test_the_handout_holds_no_solution_and_no_output(tmp_path):
    written = hand_out(LESSONS, tmp_path)
    assert [path.name for path in written] == [path.name for path in LESSONS]
    pages = {"failures.md", "glossary.md", "sources.md", "syllabus.md"}
    assert {page.name for page in tmp_path.glob("*.md")} == pages
    for lesson, path in zip(LESSONS, written, strict=True):
        whole, bare = (nbformat.read(p, as_version=4) for p in (lesson, path))
        nbformat.validate(bare)
        kept = [cell.source for cell in whole.cells if "solution" not in tags(cell)]
        assert [cell.source for cell in bare.cells] == kept and len(kept) < len(whole.cells)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in bare.cells)


def test_the_lessons_are_not_overwritten(tmp_path):
    with pytest.raises(ValueError, match="holds the lessons themselves"):
        hand_out(LESSONS[:1], LESSONS[0].parent)


def test_what_runs_begins_at_the_exercises():
    assert cells_of(notebook(["a", "b", "c"], 1).encode()) == ["b", "c"]
    assert cells_of(notebook(["a", "b"]).encode()) == ["a", "b"]
    assert cells_of(b"\xef\xbb\xbf" + notebook(["a"]).encode()) == ["a"]
    for damaged in (b"", b"[]", b"\xff", b'{"cells": [1]}', b"[" * 100_000):
        with pytest.raises(ValueError, match="no notebook, or damaged"):
            cells_of(damaged)


def test_verdicts_are_read_whatever_a_submission_wrote(tmp_path):
    lines = [
        json.dumps({"number": "03.1", "right": False, "text": "two\nlines " + "x" * 999}),
        json.dumps({"number": "03.3", "right": "yes", "text": "forged"}),
        json.dumps({"number": ["03.2"], "right": True, "text": ""}),
        json.dumps({"number": "99.9", "right": True, "text": ""}),
        *("[1]", "null", "{", "", "[" * 100_000),
    ]
    (tmp_path / "v").write_bytes("\n".join(lines).encode() + b"\xff")
    answers = grading.answers_in(tmp_path / "v")
    assert set(answers) == {"03.1", "03.3"} and answers["03.3"] == "not yet: forged"
    assert answers["03.1"].startswith("not yet: two lines xxx") and len(answers["03.1"]) < 220
    assert grading.answers_in(tmp_path / "nothing") == {}


def test_the_table_has_a_column_for_each_exercise_of_a_lesson():
    grades = [Grade("a", {"03.1": "right"}), Grade("b", {"03.2": "not yet: x, y"}, "ended early")]
    assert columns(grades) == ["03.1", "03.2", "03.3"]
    rows = list(csv.DictReader(as_csv(grades).splitlines()))
    assert rows[0]["03.1"] == "right" and rows[0]["right"] == "1" and rows[1]["right"] == "0"
    assert rows[0]["points"] == "1" and rows[1]["points"] == "0"
    assert Grade("c", {"03.2": "right", "03.3": "right"}).points == 3 + 1
    assert rows[1]["03.2"] == "not yet: x, y" and rows[1]["remark"] == "ended early"


def test_bad_input_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="no notebooks"):
        grade(tmp_path)
    with pytest.raises(ValueError, match="seconds must be an int of at least 1"):
        grade(tmp_path, Limits(seconds=0))
    with pytest.raises(ValueError, match="megabytes"):
        grade(tmp_path, Limits(megabytes=0.5))


@pytest.mark.slow
def test_the_commands(tmp_path):
    run = CliRunner().invoke
    made = run(cli.app, ["handout", str(tmp_path / "out"), "03_dsd_2d.ipynb"])
    assert made.exit_code == 0 and (tmp_path / "out" / "03_dsd_2d.ipynb").is_file()
    submit(tmp_path / "in", "ann/03", notebook([CHECK, RIGHT]))
    table = tmp_path / "grades.csv"
    done = run(cli.app, ["grade", str(tmp_path / "in"), "--out", str(table)])
    assert done.exit_code == 0 and "ann/03.ipynb" in done.output
    assert "right" in table.read_text(encoding="utf-8").splitlines()[1]


def test_a_system_without_isolation_says_so(monkeypatch):
    monkeypatch.setattr(grading, "ISOLATED", ("no-such-command",))
    grading.isolation.cache_clear()
    try:
        assert "network" in grading.without()[0]
    finally:
        grading.isolation.cache_clear()
