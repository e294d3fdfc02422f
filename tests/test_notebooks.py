"""Guards on the committed notebooks: what nbval would pass over in silence."""

import base64
import json
import re
from functools import lru_cache
from pathlib import Path

import pytest

from dsd_lab.course.exercises import EXERCISES

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# absolute paths of a machine: POSIX homes and temporary folders, Windows drives
MACHINE_PATH = re.compile(r"(/home/|/Users/|/root/|/tmp/|/work/|/var/folders/|[A-Z]:\\\\)\w")


@lru_cache
def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(path):
    return [
        cell
        for cell in read(path)["cells"]
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip()
    ]


def test_the_sources_hold_every_paper_that_the_library_names():
    def papers(text):
        return re.findall(r"\b(\d{4}\.\d{5})\b", text)

    listed = papers((FOLDER / "sources.md").read_text(encoding="utf-8"))
    named = {
        paper
        for file in (FOLDER.parent / "dsd_lab").rglob("*.py")
        for paper in papers(file.read_text(encoding="utf-8"))
    }
    assert named and named <= set(listed)
    assert all(listed.count(paper) == 2 for paper in listed)  # as a word, and in its link


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.md")), ids=lambda p: p.stem)
def test_the_links_of_a_page_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)[)#]", path.read_text(encoding="utf-8")):
        assert (FOLDER / target).is_file(), target


def test_the_syllabus_counts_the_points_that_the_exercises_have():
    text = (FOLDER / "syllabus.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| (\d\d\.1[^|]*) \| (\d+) \|", text)
    meetings = [({number[:2] for number in re.findall(r"\d\d\.\d", a)}, int(p)) for a, p in rows]
    assert all(points == 5 * len(lessons) for lessons, points in meetings)
    assert sum(points for _, points in meetings) == 75 and "With 75 points in all" in text
    for lesson in {number[:2] for number in EXERCISES}:
        assert sum(e.points for number, e in EXERCISES.items() if number[:2] == lesson) == 5
        assert any(lesson in lessons for lessons, _ in meetings)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 4
    assert NOTEBOOKS[0].name == "00_start_here.ipynb"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestNotebook:
    def test_is_executed_in_order(self, path):
        cells = code_cells(path)
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))

    def test_holds_no_error_and_no_stderr(self, path):
        for cell in code_cells(path):
            for output in cell["outputs"]:
                assert output["output_type"] != "error"
                assert output.get("name") != "stderr"

    def test_is_small(self, path):
        assert path.stat().st_size < 2_000_000

    def test_compares_its_output(self, path):
        cells = code_cells(path)
        marks = [
            " ".join(cell["metadata"].get("tags", [])).lower() + "".join(cell["source"]).lower()
            for cell in cells
        ]
        assert not any("nbval-skip" in mark or "nbval_skip" in mark for mark in marks)
        assert (
            sum("nbval-ignore" in mark or "nbval_ignore" in mark for mark in marks)
            <= len(cells) / 10
        )
        assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) / 2

    def test_holds_no_path_of_the_machine_that_ran_it(self, path):
        found = MACHINE_PATH.search(json.dumps([cell.get("outputs") for cell in code_cells(path)]))
        assert not found, found

    def test_credits_the_drawings(self, path):
        text = path.read_text(encoding="utf-8")
        if 'load_prior(\\"icons' in text:
            assert "world.credit" in text

    def test_has_live_controls_and_a_still_picture_of_each(self, path):
        """GitHub and print show no widgets: what is stored of one is a picture."""
        shown = [output["data"] for cell in code_cells(path) for output in cell["outputs"]
                 if "data" in output]  # fmt: skip
        live = [d for d in shown if "".join(d.get("text/plain", "")).startswith("Explorer(")]
        assert live and all("image/png" in data for data in live)

    def test_every_picture_is_told_in_words_too(self, path):
        """Alt text is stored beside the picture, for those who do not see it."""
        for cell in code_cells(path):
            for output in cell["outputs"]:
                for kind in {"image/png", "image/gif"} & set(output.get("data", ())):
                    assert output["metadata"][kind]["alt"], cell["source"]

    def test_what_is_to_be_shown_is_seen(self, path):
        """A cell displays its last expression only: `show` before that is lost in silence."""
        for cell in code_cells(path):
            if re.search(r"^show\(", "".join(cell["source"]), re.MULTILINE):
                assert any("image/png" in output.get("data", ()) for output in cell["outputs"])

    def test_a_moving_picture_is_small(self, path):
        for cell in code_cells(path):
            for output in cell["outputs"]:
                film = "".join(output.get("data", {}).get("image/gif", ""))
                assert len(base64.b64decode(film)) <= 300_000, cell["source"]

    def test_links_lead_somewhere(self, path):
        text = "\n".join(
            "".join(cell["source"])
            for cell in read(path)["cells"]
            if cell["cell_type"] == "markdown"
        )
        for target in re.findall(r"\]\(([^)#:]+\.(?:ipynb|md))", text):
            assert (FOLDER / target).is_file(), target

    def test_solutions_are_collapsed(self, path):
        solutions = [
            cell for cell in code_cells(path) if "solution" in cell["metadata"].get("tags", [])
        ]
        assert solutions
        assert all(cell["metadata"]["jupyter"]["source_hidden"] for cell in solutions)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_code_is_wider_than_the_page(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    lines = [line for cell in code for line in "".join(cell["source"]).splitlines()]
    assert not [line for line in lines if len(line) > 100]
