"""The book: what its pages hold, that they ask nobody for anything, and how it is replaced.

In Chromium, where it is installed, a page shows its maths and pictures without a network.
"""

import json
import re
import shutil
import subprocess
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from nbformat import v4 as new
from test_browser import CHROMIUM

from dsd_lab import cli
from dsd_lab.course import book
from dsd_lab.course.handout import EXERCISE, SOLUTION, tags

FOLDER = Path(__file__).parent.parent / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
LOADS = {("a", "href"): False, ("form", "action"): False}  # whether it is loaded unasked
NETWORK = re.compile(r"(https?:)?//")
# how styles and scripts load: url(...), @import "...", import("..."), fetch("..."), x.src = "..."
LOADERS = re.compile(
    r"""(?:\burl\(\s*["']?|(?:\b(?:import|from|(?:fetch|import|importScripts)\s*\()"""
    r"""|\b(?:src|href)\s*=)\s*["'`])((?:https?:)?//[\w.-]+)"""
)


class Page(HTMLParser):
    """A page's addresses (tag, attribute, value), pictures with their alt text, ids and words."""

    def __init__(self, path):
        super().__init__()
        self.path, self.addresses, self.pictures, self.ids, words = path, [], [], set(), []
        self.handle_data = words.append
        self.feed(path.read_text(encoding="utf-8"))
        self.words = "".join(words)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "img":
            self.pictures.append(attributes.get("alt"))
        for name in {"src", "srcset", "href", "data", "poster", "action"} & set(attributes):
            self.addresses.append((tag, name, attributes[name]))


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The whole course's pages by their place in the book, and what was found amiss."""
    pytest.importorskip("myst_nb", reason='pip install "dsd_lab[book]"')
    out = tmp_path_factory.mktemp("shelf") / "book"
    first, warnings = book.build(FOLDER, out)
    assert first == out / "index.html"
    pages = {p.relative_to(out).as_posix(): Page(p) for p in out.rglob("*.html")}
    return out, pages, warnings


@pytest.fixture
def folder(tmp_path):
    """A folder of a lesson, which has never run, and a page."""
    pytest.importorskip("myst_nb", reason='pip install "dsd_lab[book]"')
    cells = [
        new.new_markdown_cell("# 01 · One\n\n## What t does\n\n[words](words.md)"),
        new.new_code_cell("1 / 0"),
    ]
    (tmp_path / "mine").mkdir()
    lesson = new.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(lesson, tmp_path / "mine" / "01_one.ipynb")
    page = "# Words\n\n[one](01_one.ipynb#What-t-does), [licence](../LICENSE)"
    (tmp_path / "mine" / "words.md").write_text(page)
    (tmp_path / "LICENSE").write_text("free")
    return tmp_path / "mine"


def stored(lesson):
    """A lesson's cells as stored, without solutions, and its solutions."""
    cells = nbformat.read(lesson, as_version=4).cells
    return (
        [cell for cell in cells if SOLUTION not in tags(cell)],
        [cell for cell in cells if SOLUTION in tags(cell)],
    )


def pictures(cells):
    """The alt texts, or None, of the pictures that cells show; a blank exercise shows none."""
    return [
        output.metadata.get(kind, {}).get("alt")
        for cell in cells
        if EXERCISE not in tags(cell)
        for output in cell.get("outputs", ())
        for kind in sorted(output.get("data", {}))
        if kind.startswith("image/")
    ]


@pytest.mark.slow
class TestCourse:
    def test_every_lesson_and_page_is_there_in_order(self, course):
        _, pages, warnings = course
        assert warnings == []
        wanted = [f"notebooks/{p.stem}.html" for p in [*LESSONS, *sorted(FOLDER.glob("*.md"))]]
        linked = [value for tag, _, value in pages["index.html"].addresses if tag == "a"]
        listed = list(dict.fromkeys(link for link in linked if link in wanted))
        assert listed == wanted

    def test_nothing_is_loaded_from_the_network(self, course):
        out, pages, _ = course
        loaded = {
            (page, value)
            for page, parsed in pages.items()
            for tag, name, value in parsed.addresses
            if LOADS.get((tag, name), True) and NETWORK.match(value)
        }
        assert not loaded
        files = [p for p in out.rglob("*") if p.suffix in (".html", ".css", ".js")]
        links = re.compile(r"<a\s[^>]*>")
        found = {
            p.name: hits
            for p in files
            if (hits := LOADERS.findall(links.sub("", p.read_text(encoding="utf-8"))))
        }
        assert len(files) > 30 and not found

    def test_links_lead_somewhere(self, course):
        out, pages, _ = course
        checked = 0
        for page, parsed in pages.items():
            for _, _, value in parsed.addresses:
                if re.match(r"(\w+:|//)", value) or value == "#":
                    continue
                target, _, part = unquote(unescape(value)).partition("#")
                place = (parsed.path.parent / target.split("?")[0]).resolve()
                place = place if target else parsed.path
                assert place.is_file(), (page, value)
                checked += 1
                if part and place.suffix == ".html":
                    assert part in pages[place.relative_to(out).as_posix()].ids, (page, value)
        assert checked > 1000

    @pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem)
    def test_a_lesson_shows_all_but_solutions(self, course, lesson):
        page = course[1][f"notebooks/{lesson.stem}.html"]
        shown, solutions = stored(lesson)
        for cell in shown:
            if cell.cell_type == "code":
                assert cell.source.strip() in page.words
        long = [cell.source.strip() for cell in solutions if len(cell.source) > 60]
        assert long and not any(text in page.words for text in long)
        assert not re.search(r"^\d\d\.\d (right|not yet)", page.words, re.MULTILINE)
        assert "Explorer(" not in page.words
        wanted = pictures(shown)
        assert len(page.pictures) == len(wanted)
        assert Counter(alt for alt in wanted if alt) <= Counter(page.pictures)
        linked = [value for tag, _, value in page.addresses if tag == "a" and "_images/" in value]
        assert len(linked) == len(wanted)  # each to itself, where it is seen in full

    def test_words_can_be_searched(self, course):
        out, _, _ = course
        text = (out / "searchindex.js").read_text(encoding="utf-8")
        index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
        names = index["docnames"]
        assert {f"notebooks/{p.stem}" for p in LESSONS} | {"notebooks/glossary"} <= set(names)
        assert names.index("notebooks/glossary") in index["terms"]["janus"]

    def test_credits_and_licences_lie_beside_it(self, course):
        out, pages, _ = course
        assert "Twemoji" in pages["drawings.html"].words
        assert "Apache License" in (out / "LICENSE-APACHE-2.0.txt").read_text()


ELSEWHERE = "http://elsewhere.invalid/a.js"  # asked for by the test itself, to see that it is told
ASK = f"""<script src="{ELSEWHERE}"></script>"""
ASK += """<pre id="answer"></pre><script>addEventListener("load", () => setTimeout(() => {
  const all = (what) => [...document.querySelectorAll(what)];
  document.querySelector("#answer").textContent = JSON.stringify({
    maths: all(".math").length, wrong: all("mjx-merror, .math:not(:has(svg))").length,
    wide: all("div.math").filter((line) => line.scrollWidth > line.clientWidth + 2).length,
    pictures: all("img").length, blank: all("img").filter((img) => !img.naturalWidth).length,
    found: all("#search-results li a").map((a) => a.textContent),
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
  });
}, 3000))</script></body>"""


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("address", ["notebooks/01_ddim_trajectories.html", "search.html?q=Janus"])
def test_a_browser_shows_it_without_a_network(course, address):
    out, _, _ = course
    name, _, query = address.partition("?")
    asked = (out / name).with_name("asked.html")
    asked.write_text((out / name).read_text(encoding="utf-8").replace("</body>", ASK))
    options = "--headless --no-sandbox --no-first-run --disable-background-networking "
    options += "--window-size=1280,900 "
    options += "--virtual-time-budget=30000 --dump-dom --proxy-server=127.0.0.1:9"
    done = subprocess.run(
        [CHROMIUM, *options.split(), f"{asked.as_uri()}?{query}"],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    asked.unlink()
    answer = json.loads(unescape(re.search('<pre id="answer">(.+?)</pre>', done.stdout)[1]))
    assert answer["loaded"] == [ELSEWHERE]  # of what lies beside it, nothing is told
    assert answer["wrong"] == answer["blank"] == answer["wide"] == 0
    if query:
        assert "Glossary" in answer["found"]
    else:
        assert answer["maths"] > 50 and answer["pictures"] > 5


@pytest.mark.slow
class TestReplacing:
    def test_a_folder_of_ones_own_becomes_a_book_and_a_newer_one(self, folder, monkeypatch, capsys):
        out = folder.parent / "book"
        words = ["dsd-lab", "book", str(out), "--notebooks", str(folder)]
        monkeypatch.setattr("sys.argv", words)
        for _ in range(2):
            with pytest.raises(SystemExit) as end:
                cli.main()
            assert end.value.code == 0
            said = capsys.readouterr()
            assert (said.out.strip(), said.err) == (str(out / "index.html"), "")
            page = Page(out / "mine" / "words.html")
            assert ("a", "href", "01_one.html#what-t-does") in page.addresses
            assert not any("ZeroDivision" in p.read_text() for p in out.rglob("*.html"))  # not run
            (folder / "02_two.md").write_text("# Two")
        assert (out / "mine" / "02_two.html").is_file()
        assert sorted(p.name for p in folder.parent.iterdir()) == ["LICENSE", "book", "mine"]

    def test_a_dead_link_is_told(self, folder):
        (folder / "words.md").write_text("# Words\n\n[gone](gone.md)")
        _, warnings = book.build(folder, folder.parent / "book")
        assert len(warnings) == 1 and warnings[0].startswith("mine/words.md:3: WARNING")
        assert "gone.md" in warnings[0]


def test_no_printed_sentence_is_too_wide_and_tables_stay_whole():
    sentence = "as far from DDIM's of the same seeds, " * 4 + "at the end"
    row = "DSD unit gain  " + "0.12 [0.11, 0.13]  " * 8
    cell = new.new_code_cell("1", outputs=[new.new_output("stream", text=f"{sentence}\n{row}\n")])
    told = book.on_paper(new.new_notebook(cells=[cell])).cells[0].outputs[0].text.split("\n")
    assert max(len(line) for line in told if line != row) <= book.WIDE < len(sentence)
    assert " ".join(" ".join(told[:-2]).split()) == sentence
    assert told[-2:] == [row, ""]


def test_no_line_begins_with_the_mark_after_a_formula():
    text = "With $x$ and $y_t$, at $t$ ($r$); so\n\n$$ x = y, $$\n\nis $z$."
    told = book.on_paper(new.new_notebook(cells=[new.new_markdown_cell(text)])).cells[0].source
    together = re.findall(r'<span class="together">(.+?)</span>', told)
    assert together == ["$y_t$,", "$r$);", "$z$."]
    assert re.sub("<[^>]+>", "", told) == text


def test_a_failure_leaves_the_earlier_book(folder, monkeypatch):
    out = folder.parent / "book"
    out.mkdir()
    (out / book.MARK).touch()
    (out / "index.html").write_text("earlier")
    (folder / "03_three.ipynb").write_text("no notebook")
    with pytest.raises(ValueError, match='03_three.ipynb" is damaged, or no notebook'):
        book.build(folder, out)
    assert (out / "index.html").read_text() == "earlier"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["LICENSE", "book", "mine"]


def test_what_is_no_book_is_not_replaced(folder):
    before = sorted(folder.iterdir())
    for place in (folder, folder / "words.md"):
        with pytest.raises(ValueError, match="holds something else than a book"):
            book.build(folder, place)
    assert sorted(folder.iterdir()) == before
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ValueError, match="holds no notebooks"):
        book.build(folder, folder.parent / "book")


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(book, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=re.escape('pip install "dsd_lab[book]"')):
        book.build(FOLDER, tmp_path / "book")
    assert not list(tmp_path.iterdir())
