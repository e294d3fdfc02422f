"""The course as a folder of static pages: Sphinx and myst-nb on the stored notebooks, of which no
cell is run. Everything a page needs lies beside it, so it is read without a network.
"""

import io
import os
import re
import shutil
import tempfile
from base64 import b64decode
from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap

import nbformat
from nbformat import NotebookNode
from PIL import Image

from ..files import expanded, prepare_folder, write_file
from .handout import EXERCISE, SOLUTION, tags

MARK = ".dsd-lab-book"  # lies in a folder that a newer book may replace
MATHJAX = "sphinx-mathjax-offline", "static/mathjax/tex-svg-full.js"  # its SVGs need no fonts
THEME = Path(__file__).parent / "book_theme"
LICENCES = Path(__file__).parents[1] / "worlds" / "icons_data"
LINK = re.compile(r"\]\(([^)#:\s]+)")  # within the project: no scheme, no anchor
CONTROLS = re.compile(r"Explorer\((.*)\)")  # how a set of controls is stored in words
MARKED = re.compile(r"(?<!\$)\$[^$\n]+\$[,.;:!?)]+")  # a formula and the marks that belong to it
GAP = re.compile(r"\S {2,}\S")  # between a table's columns
LONG = 20  # lines of code
WIDE = 106  # letters of a printed line that fit the column
SETTINGS = {
    "project": "dsd_lab",
    "extensions": ["myst_nb"],
    "root_doc": "index",
    "language": "en",
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "nb_render_markdown_format": "myst",
    "nb_code_prompt_show": "Show the code",
    "nb_code_prompt_hide": "Hide the code",
    "nb_ipywidgets_js": {},  # else they are asked for on the network
    "myst_enable_extensions": ["dollarmath", "amsmath"],
    "myst_heading_anchors": 3,
    "myst_heading_slug_func": "dsd_lab.course.book.anchor",
    "html_theme": "furo",
    "html_title": "Score distillation, a course",
    "html_static_path": ["_static"],
    "html_extra_path": ["_beside"],
    "html_css_files": ["book.css"],
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # a summary is fetched, which a browser denies to files
    "html_use_index": False,
    "mathjax_path": "mathjax.js",
    "mathjax3_config": {
        "options": {"enableMenu": False, "enableAssistiveMml": True},
        "svg": {"scale": 0.9},  # beside this text, and so that two equations fit a line
    },
}


def anchor(heading: str) -> str:
    """A heading's anchor, as JupyterLab makes it: "What t does" -> "What-t-does"."""
    return heading.replace(" ", "-")


def on_paper(notebook: NotebookNode) -> NotebookNode:
    """The notebook as it is printed: without solutions and what the blank exercises answered; its
    pictures with their alt text, and with a caption where they stand for what moves; no printed
    sentence wider than the column.
    """
    notebook.cells = [cell for cell in notebook.cells if SOLUTION not in tags(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _together(cell.source)
        if EXERCISE in tags(cell) and cell.cell_type == "code":
            cell.outputs = []
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = "\n".join(map(_broken, output.text.split("\n")))
            _picture(cell, output)
    return notebook


def _together(text: str) -> str:
    """Markdown in which no line breaks between a formula and the mark after it."""
    return MARKED.sub(r'<span class="together">\g<0></span>', text)


def _broken(line: str) -> str:
    """A printed line, broken if it is too wide and no row of a table."""
    if len(line) <= WIDE or len(GAP.findall(line)) > 1:
        return line
    return "\n".join(wrap(line, WIDE, subsequent_indent="    ", break_on_hyphens=False))


def _picture(cell: NotebookNode, output: NotebookNode) -> None:
    """Have myst-nb show an output's picture, if it has one, as it is meant; long code above it is
    folded. With its width given, Sphinx links it to itself, where it is seen in full.
    """
    data = output.get("data", {})
    for kind in [kind for kind in data if kind.startswith("image/")]:
        shown = cell.metadata.setdefault("mystnb", {})
        image = shown["image"] = {}
        if alt := output.metadata.get(kind, {}).get("alt"):
            image["alt"] = alt
        if "svg" not in kind:
            image["width"] = f"{Image.open(io.BytesIO(b64decode(data[kind]))).width}px"
        if controls := CONTROLS.match(data.get("text/plain", "")):
            shown["figure"] = {"caption": f"A still. In the notebook these move: {controls[1]}."}
        if data.pop("application/vnd.plotly.v1+json", None):
            shown["figure"] = {"caption": "A still. In the notebook it can be moved and zoomed."}
        if len(cell.source.splitlines()) > LONG:
            cell.metadata["tags"] = [*tags(cell), "hide-input"]


def _written(page: Path, place: Path) -> str:
    """Write a page's source, or copy what is none; returns the Markdown in it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if page.suffix == ".md":
        text = page.read_text(encoding="utf-8")
        write_file(place, _together(text))
        return text
    if page.suffix != ".ipynb":
        shutil.copyfile(page, place)
        return ""
    try:
        printed = on_paper(nbformat.read(page, as_version=4))
    except ValueError as error:
        raise ValueError(f'"{page}" is damaged, or no notebook') from error
    write_file(place, nbformat.writes(printed))
    return "\n".join(cell.source for cell in printed.cells if cell.cell_type == "markdown")


def gather(folder: Path, place: Path) -> dict[str, list[str]]:
    """Write the sources of the book's pages under `place`, laid out as in the project so that all
    links hold: a folder's notebooks and Markdown pages, and what they link to, at any remove.

    Returns the pages' names under the headings of the table of contents. Raises ValueError for a
    folder without notebooks, or a file that is none.
    """
    root, lessons = folder.resolve().parent, sorted(folder.resolve().glob("*.ipynb"))
    if not lessons:
        raise ValueError(f'"{folder}" holds no notebooks')
    beside = sorted(folder.resolve().glob("*.md"))
    todo, done = [*lessons, *beside], []
    while todo:
        page = todo.pop(0)
        text = _written(page, place / page.relative_to(root))
        done.append(page)
        linked = {(page.parent / target).resolve() for target in LINK.findall(text)}
        todo += sorted(p for p in linked - {*done, *todo} if p.is_file() and root in p.parents)
    shutil.copyfile(LICENCES / "ATTRIBUTION.md", place / "drawings.md")
    further = [page for page in done if page.suffix in (".ipynb", ".md")][len(lessons + beside) :]
    parts = {"Lessons": lessons, "Beside them": beside, "What they link to": further}
    names = {
        heading: [page.relative_to(root).with_suffix("").as_posix() for page in pages]
        for heading, pages in parts.items()
    }
    names["Beside them"].append("drawings")
    return names


def _front(contents: dict[str, list[str]]) -> str:
    """The first page, in Markdown."""
    trees = [
        "\n".join([f"```{{toctree}}\n:caption: {heading}\n:maxdepth: 1\n", *pages, "```\n"])
        for heading, pages in contents.items()
        if pages
    ]
    page = (THEME / "index.md").read_text(encoding="utf-8")
    return page.replace("CONTENTS", "\n".join(trees))


def _sources(folder: Path, place: Path) -> None:
    """Write all that Sphinx reads: the pages, and what goes into the book as it is."""
    static, beside = prepare_folder(place / "_static"), prepare_folder(place / "_beside")
    write_file(place / "index.md", _front(gather(folder, place)))
    shutil.copyfile(THEME / "book.css", static / "book.css")
    shutil.copyfile(Path(find_spec(MATHJAX[0]).origin).parent / MATHJAX[1], static / "mathjax.js")
    for text in LICENCES.glob("LICENSE-*.txt"):
        shutil.copyfile(text, beside / text.name)
    write_file(beside / MARK, "made by dsd-lab book\n")


def _typeset(sources: Path, pages: Path) -> list[str]:
    """Have Sphinx make the pages; returns its warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    found = io.StringIO()
    with patch_docutils(), docutils_namespace():
        app = Sphinx(sources, None, pages, sources / "_doctrees", "html", SETTINGS, None, found)
        app.build()
    plain = re.sub(r"\x1b\[[\d;]*m", "", found.getvalue())
    return plain.replace(f"{sources}{os.sep}", "").splitlines()


def build(folder: Path, out: str | Path) -> tuple[Path, list[str]]:
    """Make a book of a folder of executed notebooks and Markdown pages; nothing is executed.

    An earlier book in `out` is replaced once the new one is complete. Returns the first page, and
    what Sphinx found amiss, such as a link that leads nowhere.
    Raises ValueError without the extra `book`, if `out` holds anything else than a book, or as
    `gather` does.
    """
    if not all(find_spec(name) for name in ("sphinx", "myst_nb", "furo", MATHJAX[0])):
        raise ValueError('a book needs Sphinx: pip install "dsd_lab[book]"')
    out = expanded(out).resolve()
    if out.exists() and not (out / MARK).is_file() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f'"{out}" holds something else than a book; choose another folder')
    prepare_folder(out.parent)
    with tempfile.TemporaryDirectory(prefix=".book-", dir=out.parent) as temporary:
        sources, pages = Path(temporary).resolve() / "sources", Path(temporary) / "pages"
        _sources(folder, sources)
        warnings = _typeset(sources, pages)
        if out.exists():
            os.replace(out, Path(temporary) / "earlier")
        os.replace(pages, out)
    return out / "index.html", warnings
