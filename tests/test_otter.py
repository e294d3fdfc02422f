"""The exercises as otter-grader assignments: their notebooks, and test files that judge."""

import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from test_exercises import SOLUTIONS
from typer.testing import CliRunner

from dsd_lab import cli
from dsd_lab.course.exercises import EXERCISES
from dsd_lab.course.handout import tags
from dsd_lab.course.otter import asked, hand_out_otter

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("otter")
    hand_out_otter(LESSONS, place)
    return place


@pytest.fixture
def otter(monkeypatch):
    """What a test file imports of otter-grader: a decorator that keeps the function."""
    module = ModuleType("otter.test_files")
    module.test_case = lambda **settings: lambda function: function
    monkeypatch.setitem(sys.modules, "otter", ModuleType("otter"))
    monkeypatch.setitem(sys.modules, "otter.test_files", module)


def test_each_lesson_with_exercises_has_its_assignment(folder):
    assert {path.name[:2] for path in folder.iterdir()} == {number[:2] for number in EXERCISES}
    found = {path.stem for path in folder.rglob("q*.py")}
    assert found == {f"q{number.replace('.', '_')}" for number in EXERCISES}


def test_an_assignment_is_the_exercises_alone_and_asks_otter_after_each(folder):
    for place in folder.iterdir():
        cells = nbformat.read(place / f"{place.name}.ipynb", as_version=4).cells
        nbformat.validate(nbformat.read(place / f"{place.name}.ipynb", as_version=4))
        assert f'otter.Notebook("{place.name}.ipynb")' in cells[0].source
        assert not any("solution" in tags(cell) or cell.get("outputs") for cell in cells)
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        numbers = [asked(cell)[0] for cell in cells if cell.cell_type == "code" and asked(cell)]
        assert numbers == [n for n in EXERCISES if n[:2] == place.name[:2]]
        for number in numbers:
            k = next(k for k, source in enumerate(code) if f'check("{number}"' in source)
            assert code[k + 1] == f'grader.check("q{number.replace(".", "_")}")'
            text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
            assert f"**{number}**" in text


@pytest.mark.parametrize("number", [n for n in EXERCISES if n.endswith((".1", ".3"))])
def test_a_test_file_tells_right_from_wrong(folder, otter, number):
    (path,) = folder.rglob(f"q{number.replace('.', '_')}.py")
    space = {}
    exec(path.read_text(encoding="utf-8"), space)
    assert space["points"] == EXERCISES[number].points and space["OK_FORMAT"] is False
    space["right"](SOLUTIONS[number])
    with pytest.raises(AssertionError, match="there is no answer yet"):
        space["right"](None)


def test_the_command(tmp_path):
    done = CliRunner().invoke(cli.app, ["handout", str(tmp_path), "03_dsd_2d.ipynb", "--otter"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "03_dsd_2d" / "tests" / "q03_2.py").is_file()
    assert "03_dsd_2d.ipynb" in done.output
