"""The course as a folder of static pages: Sphinx and myst-nb on the stored notebooks, of which no
cell is run. Everything a page needs lies beside it, so it is read without a network.
"""

import io
import os
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ..files import expanded, prepare_folder, write_file
from .handout import EXERCISE, SOLUTION, tags

MARK = ".dsd-lab-book"  # lies in a folder that may be replaced by a newer book
EXTRA = 'a book needs Sphinx: pip install -c constraints.txt -e ".[book]"'
MATHJAX = "sphinx-mathjax-offline", "static/mathjax/tex-svg-full.js"  # its SVGs need no fonts
THEME = Path(__file__).parent / "book_theme"
LICENCES = Path(__file__).parents[1] / "worlds" / "icons_data"
LINK = re.compile(r"\]\(([^)#:\s]+)")  # within the project: no scheme, no anchor
LONG = 20  # lines of code
CONTROLS = re.compile(r"Explorer\((.*)\)")  # how a set of controls is stored in words
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
    "html_css_files": ["book.css"],
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # a summary is fetched, which a browser denies to files
    "html_use_index": False,
    "mathjax_path": "mathjax/tex-svg-full.js",
    "mathjax3_config": {"options": {"enableMenu": False, "enableAssistiveMml": True}},
}


def anchor(heading: str) -> str:
    """A heading's anchor, as JupyterLab makes it: "What t does" -> "What-t-does"."""
    return heading.replace(" ", "-")


def on_paper(notebook: NotebookNode) -> NotebookNode:
    """The notebook as it is printed: without solutions and what the blank exercises answered; its
    pictures with their alt text, and with a caption where they stand for controls.
    """
    notebook.cells = [cell for cell in notebook.cells if SOLUTION not in tags(cell)]
    for cell in notebook.cells:
        if EXERCISE in tags(cell) and cell.cell_type == "code":
            cell.outputs = []
        for output in cell.get("outputs", ()):
            _picture(cell, output)
    return notebook


def _picture(cell: NotebookNode, output: NotebookNode) -> None:
    """Have myst-nb show an output's picture, if it has one, as it is meant; long code above it is
    folded.
    """
    data = output.get("data", {})
    for kind in [kind for kind in data if kind.startswith("image/")]:
        data.pop("application/vnd.plotly.v1+json", None)  # the picture stands for it
        shown = cell.metadata.setdefault("mystnb", {})
        if alt := output.metadata.get(kind, {}).get("alt"):
            shown["image"] = {"alt": alt}
        if controls := CONTROLS.match(data.get("text/plain", "")):
            shown["figure"] = {"caption": f"A still: in the notebook, {controls[1]} can be moved."}
        if len(cell.source.splitlines()) > LONG:
            cell.metadata["tags"] = [*tags(cell), "hide-input"]


def _written(page: Path, place: Path) -> str:
    """Write a page's source, or copy what is none; returns the Markdown in it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if page.suffix != ".ipynb":
        shutil.copyfile(page, place)
        return page.read_text(encoding="utf-8") if page.suffix == ".md" else ""
    printed = on_paper(nbformat.read(page, as_version=4))
    write_file(place, nbformat.writes(printed))
    return "\n".join(cell.source for cell in printed.cells if cell.cell_type == "markdown")


def gather(folder: Path, place: Path) -> dict[str, list[str]]:
    """Write the sources of the book's pages under `place`, laid out as in the project so that all
    links hold: a folder's notebooks and Markdown pages, and what they link to, at any remove.

    Returns the pages' names under the headings of the table of contents.
    """
    root = folder.resolve().parent
    lessons, beside = sorted(folder.glob("*.ipynb")), sorted(folder.glob("*.md"))
    todo, done = [path.resolve() for path in [*lessons, *beside]], []
    while todo:
        page = todo.pop(0)
        text = _written(page, place / page.relative_to(root))
        done.append(page)
        linked = {(page.parent / target).resolve() for target in LINK.findall(text)}
        todo += sorted(p for p in linked - {*done, *todo} if p.is_file() and root in p.parents)
    shutil.copyfile(LICENCES / "ATTRIBUTION.md", place / "drawings.md")
    names = [str(p.relative_to(root).with_suffix("").as_posix()) for p in done if
             p.suffix in (".ipynb", ".md")]  # fmt: skip
    first, second = len(lessons), len(lessons) + len(beside)
    return {
        "Lessons": names[:first],
        "Beside them": [*names[first:second], "drawings"],
        "What they link to": names[second:],
    }


def _front(contents: dict[str, list[str]]) -> str:
    """The first page, in Markdown."""
    trees = [
        "\n".join([f"```{{toctree}}\n:caption: {heading}\n:maxdepth: 1\n", *pages, "```\n"])
        for heading, pages in contents.items()
        if pages
    ]
    return (THEME / "index.md").read_text(encoding="utf-8") + "\n" + "\n".join(trees)


def _typeset(sources: Path, pages: Path) -> str:
    """Have Sphinx make the pages; returns its warnings."""
    from sphinx.application import Sphinx

    warnings = io.StringIO()
    app = Sphinx(sources, None, pages, sources / "_doctrees", "html", SETTINGS, None, warnings)
    app.build()
    return warnings.getvalue()


def build(folder: Path, out: str | Path) -> tuple[Path, str]:
    """Make a book of a folder of executed notebooks and Markdown pages; nothing is executed.

    An earlier book in `out` is replaced once the new one is complete. Returns the first page, and
    what Sphinx found amiss, such as a link that leads nowhere: "" if nothing.
    Raises ValueError without the extra `book`, or if `out` holds anything else than a book.
    """
    if not all(find_spec(name) for name in ("sphinx", "myst_nb", "furo", MATHJAX[0])):
        raise ValueError(EXTRA)
    out = expanded(out).resolve()
    if out.exists() and not (out / MARK).is_file() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f'"{out}" holds something else than a book; choose another folder')
    prepare_folder(out.parent)
    with tempfile.TemporaryDirectory(prefix=".book-", dir=out.parent) as temporary:
        sources, pages = Path(temporary) / "sources", Path(temporary) / "pages"
        static = sources / "_static"
        write_file(prepare_folder(sources) / "index.md", _front(gather(folder, sources)))
        (static / "mathjax").mkdir(parents=True)
        shutil.copyfile(THEME / "book.css", static / "book.css")
        mathjax = Path(find_spec(MATHJAX[0]).origin).parent / MATHJAX[1]
        shutil.copyfile(mathjax, static / "mathjax" / mathjax.name)
        for text in LICENCES.glob("LICENSE-*.txt"):
            shutil.copyfile(text, prepare_folder(static / "licences") / text.name)
        warnings = _typeset(sources, pages)
        write_file(pages / MARK, "made by dsd-lab book\n")
        if out.exists():
            os.replace(out, Path(temporary) / "earlier")
        os.replace(pages, out)
    return out / "index.html", warnings
