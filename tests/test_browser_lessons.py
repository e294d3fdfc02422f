"""The lessons in JupyterLab, and one as a Voila page, in headless Chromium: cells run, controls
move, pictures follow.

Needs Chromium and playwright (`pip install -e .[test]`), and is skipped without. Pictures of the
explorers, and of a page where a test failed, and the milliseconds from each control's move to its
picture are kept in `.pytest_cache/d/browser`; the run prints them, too.
"""

import ast
import contextlib
import json
import os
import shutil
import socket
import subprocess
import symtable
import sys
import time
from pathlib import Path

import nbformat
import pytest
from test_browser import CHROMIUM

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright on this machine")
LESSONS = Path(__file__).parents[1] / "notebooks"
WHOLE = ("00", "03", "07", "11")  # run from top to bottom; of the others what the controls need
LIMIT = 60_000  # milliseconds a picture may take, on a machine that has other things to do
CELLS = 900_000  # and a lesson's cells
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "autosaveInterval": 0},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

RUN = """async ([indices, limit]) => {
  const panel = jupyterapp.shell.currentWidget, late = new Promise((_, reject) =>
    setTimeout(() => reject(new Error("the cells took too long")), limit));
  await panel.sessionContext.ready;
  const run = async () => {
    if (indices === null) return jupyterapp.commands.execute("notebook:run-all-cells");
    for (const i of indices) {
      panel.content.deselectAll();
      panel.content.activeCellIndex = i;
      await jupyterapp.commands.execute("notebook:run-cell");
    }
  };
  await Promise.race([run(), late]);
  return panel.content.widgets.flatMap((cell, i) => cell.model.type !== "code" ? [] :
    cell.model.sharedModel.getOutputs().filter(output => output.output_type === "error")
      .map(error => `cell ${i}: ${error.ename}: ${error.evalue}`));
}"""
# the share of neighbours along a row of dots that differ: pixels four times as large have fewer
FINE = """img => {
  if (!img.naturalWidth) return 0;  // it has left one picture, and not come to the next
  const canvas = Object.assign(document.createElement("canvas"),
    { width: img.naturalWidth, height: img.naturalHeight }), plane = canvas.getContext("2d");
  plane.drawImage(img, 0, 0);
  const row = plane.getImageData(0, canvas.height / 2 | 0, canvas.width, 1).data;
  let differ = 0;
  for (let i = 4; i < row.length; i += 4) differ += row[i] !== row[i - 4];
  return differ / canvas.width;
}"""
OPEN = "async path => { await jupyterapp.commands.execute('docmanager:open', { path }); }"
READY = "jupyterapp.shell.currentWidget?.content?.widgets?.length > 0"
CLOSE = """async () => {  // the launcher stays: a new one would come in front of the next lesson
  for (const panel of jupyterapp.shell.widgets("main"))
    if (panel.context) await panel.sessionContext.shutdown(), panel.dispose();
}"""
WINDOW = {"width": 1280, "height": 1400}
VIEWER = Path("viewer.ipynb")
SCENE = """from dsd_lab import Scene
from dsd_lab.viz.scenes import orbit_viewer
orbit_viewer({"one": Scene(), "two": Scene()}, size=192)"""
CONTROLS = ".widget-inline-hbox:is(:has(select), :has(.noUi-handle))"
WATCH = """cell => {
  window.pictures = [];
  const picture = cell.querySelector("img.widget-image");
  picture.onload = () => pictures.push(performance.now());
  for (const kind of ["keydown", "change", "click", "pointerup"])
    cell.addEventListener(kind, () => { window.moved = performance.now(); }, true);
}"""


@pytest.fixture(scope="module")
def kept(pytestconfig) -> Path:
    """The folder for what is to be looked at."""
    return pytestconfig.cache.mkdir("browser")


@contextlib.contextmanager
def served(folder: Path, module: str, *options: str):
    """The address of a server on a copy of the lessons, which knows no settings but its own."""
    shutil.copytree(LESSONS, folder / "notebooks", dirs_exist_ok=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "RUNTIME", "DATA")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", module, "--no-browser", f"--port={port}", *options],
            cwd=folder / "notebooks", env=os.environ | own, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            for _ in range(240):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.25)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(LIMIT / 1000)  # it ends its kernels first


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on the lessons, and on a notebook of a viewer alone."""
    folder, new = tmp_path_factory.mktemp("lab"), nbformat.v4
    kernel = {"kernelspec": {"display_name": "Python 3", "name": "python3"}}
    scene = new.new_notebook(cells=[new.new_code_cell(SCENE)], metadata=kernel)
    (folder / "notebooks").mkdir()
    nbformat.write(scene, folder / "notebooks" / VIEWER)
    for name, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    options = "--allow-root --ip=127.0.0.1 --IdentityProvider.token= --ServerApp.port_retries=0"
    options += " --LabApp.expose_app_in_browser=True"
    with served(folder, "jupyterlab", *options.split()) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    """One browser for this file: its event loop may not outlive it, for tests that run one. (That
    of pytest-playwright's session does, and `asyncio.run` in another file then fails.)
    """
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(chromium, lab):
    """JupyterLab, once for all lessons: it takes longer to load than most of them."""
    page = chromium.new_page(viewport=WINDOW)
    page.set_default_timeout(LIMIT)  # of what has none of its own: JupyterLab is slow to load
    page.goto(f"{lab}/lab?reset")
    page.locator(".jp-Launcher").wait_for()
    yield page
    page.close()


@contextlib.contextmanager
def watched(page, kept: Path, name: str):
    """Nothing may go wrong in a page; if it does, a picture of it is kept."""
    wrong = []

    def note(error):
        wrong.append(str(error))

    page.on("pageerror", note)
    try:
        yield
        assert not wrong, wrong
    except BaseException:
        page.screenshot(path=kept / f"{name}-failed.png")
        raise
    finally:
        page.remove_listener("pageerror", note)


@contextlib.contextmanager
def opened(page, kept: Path, path: Path):
    """A lesson in JupyterLab, and no other beside it."""
    with watched(page, kept, path.stem):
        try:
            page.evaluate(OPEN, path.name)
            page.wait_for_function(READY, timeout=LIMIT)
            yield
        finally:
            page.evaluate(CLOSE)


def code_cells(path: Path) -> dict[int, dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {i: cell for i, cell in enumerate(cells) if cell["cell_type"] == "code"}


def explorers(path: Path) -> list[int]:
    """The cells that show one."""

    def words(cell):
        return ["".join(o.get("data", {}).get("text/plain", "")) for o in cell["outputs"]]

    cells = code_cells(path).items()
    return [i for i, cell in cells if any(w.startswith("Explorer(") for w in words(cell))]


def names(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell defines or changes, and those that it uses."""
    tables = [symtable.symtable(source, "cell", "exec")]
    made = {
        name.get_name()
        for name in tables[0].get_symbols()
        if name.is_assigned() or name.is_imported()
    }
    for table in tables:
        tables += table.get_children()
    used = {
        name.get_name()
        for table in tables
        for name in table.get_symbols()
        if name.is_referenced() and (table is tables[0] or name.is_global())
    }
    changed = (n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Subscript)
               and isinstance(n.ctx, ast.Store))  # fmt: skip
    return made | {n.id for n in changed if isinstance(n, ast.Name)}, used


def needed(path: Path, shown: list[int]) -> list[int]:
    """The cells that those shown need, and these, in order."""
    cells = code_cells(path)
    wanted, chosen = set(), set()
    for i in sorted(cells, reverse=True):
        made, used = names("".join(cells[i]["source"]))
        if i in shown or (i < max(shown) and made & wanted):
            chosen.add(i)
            wanted = wanted - made | used
    return sorted(chosen)


def move(cell, control) -> str | None:
    """Move a control as a hand would, and return its name; None if it is grey."""
    name = control.locator(".widget-label").first.inner_text()
    menu, handle = control.locator("select"), control.locator(".noUi-handle")
    if menu.count():
        if menu.is_disabled():
            return None
        menu.select_option(index=(menu.evaluate("menu => menu.selectedIndex") + 1) % 2)
    else:
        if control.locator(".noUi-target[disabled]").count():
            return None
        now, most = (handle.get_attribute(f"aria-value{kind}") for kind in ("now", "max"))
        handle.press("Home" if float(now) == float(most) else "End")
    return name


def first_picture(page) -> int:
    """Milliseconds from what was moved last to the next picture."""
    page.wait_for_function("pictures.at(-1) > moved", timeout=LIMIT)
    return round(page.evaluate("pictures.find(time => time > moved) - moved"))


def hold(cell) -> None:
    """Pause a run that goes, and wait until no more pictures come."""
    pause = cell.locator("button", has_text="Pause")
    for _ in range(10):  # a run may end as it is clicked, and the click begin another
        if not pause.count():
            break
        with contextlib.suppress(sync_api.TimeoutError):
            pause.first.click(timeout=1000)
            pause.first.wait_for(state="detached", timeout=5000)  # the kernel has heard it
    cell.page.wait_for_function("performance.now() - pictures.at(-1) > 300", timeout=LIMIT)


@pytest.mark.parametrize("path", sorted(LESSONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_controls_of_a_lesson(path, page, kept, record_property):
    shown, report = explorers(path), {"load": os.getloadavg()[0]}
    with opened(page, kept, path):
        cells = None if path.name.startswith(WHOLE) else needed(path, shown)
        began = time.perf_counter()
        assert page.evaluate(RUN, [cells, CELLS]) == []
        report["cells"] = round(1000 * (time.perf_counter() - began))
        for number, i in enumerate(shown, 1):
            cell = page.locator(".jp-Notebook .jp-Cell").nth(i)
            cell.scroll_into_view_if_needed()
            cell.locator(".jp-OutputArea").screenshot(path=kept / f"{path.stem}-{number}.png")
            cell.evaluate(WATCH)
            controls = cell.locator(CONTROLS)
            for k in range(controls.count()):
                if name := move(cell, controls.nth(k)):
                    report[f"{number} {name}"] = first_picture(page)
                    hold(cell)
            for name in ("Step", "Reset", "Start"):
                for button in cell.locator("button.widget-button", has_text=name).all():
                    button.click()
                    report[f"{number} {name}"] = first_picture(page)
            hold(cell)
            assert "cannot be shown" not in cell.inner_text()
            cell.locator(".jp-OutputArea").screenshot(path=kept / f"{path.stem}-{number}-moved.png")
    (kept / f"{path.stem}.json").write_text(json.dumps(report))
    record_property("milliseconds", report)


def test_a_stroke_of_the_pen_begins_a_run(page, kept, record_property):
    (path,) = LESSONS.glob("*_draw_it_yourself.ipynb")
    pad, report = explorers(path)[0], {}
    with opened(page, kept, path):
        assert page.evaluate(RUN, [needed(path, [pad]), CELLS]) == []
        cell = page.locator(".jp-Notebook .jp-Cell").nth(pad)
        canvas, said = cell.locator("canvas"), cell.locator("canvas + div [aria-live]")
        canvas.scroll_into_view_if_needed()
        cell.evaluate(WATCH)
        assert said.inner_text().startswith("28 of")
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 40, box["y"] + 150)
        page.mouse.down()
        page.mouse.move(box["x"] + 140, box["y"] + 150, steps=10)
        page.mouse.up()
        report["stroke"] = first_picture(page)
        drawn = int(said.inner_text().split()[0])
        assert drawn > 32
        hold(cell)
        for key in ("ArrowRight", "ArrowUp", "Space"):
            canvas.press(key)
        report["key"] = first_picture(page)
        assert said.inner_text().startswith(f"{drawn + 1} of")
        cell.locator(".jp-OutputArea").screenshot(path=kept / f"{path.stem}-drawn.png")
        cell.locator("button", has_text="Clear").click()
        cell.get_by_text("nothing is drawn with pen A").wait_for(timeout=LIMIT)
    record_property("milliseconds", report)


def test_a_viewer_answers_a_storm_and_sharpens(page, kept, record_property):
    with opened(page, kept, VIEWER):
        assert page.evaluate(RUN, [[0], CELLS]) == []
        cell = page.locator(".jp-Notebook .jp-Cell").first
        cell.evaluate(WATCH)
        handle, picture = cell.locator(".noUi-handle").first, cell.locator("img.widget-image")
        for _ in range(12):
            handle.press("ArrowRight")
        first, limit = first_picture(page), time.monotonic() + LIMIT / 1000
        newest = "azimuth 90, elevation 20"  # of 12 steps of 5
        while picture.evaluate(FINE) <= 0.5 or newest not in cell.inner_text():
            assert time.monotonic() < limit, f"coarse, or not the newest: {cell.inner_text()}"
            page.wait_for_timeout(50)
    record_property("milliseconds", {"orbit": first})


def test_a_lesson_is_a_voila_page(chromium, tmp_path, kept, record_property):
    pytest.importorskip("voila", reason="no voila on this machine")
    (path,) = LESSONS.glob("01_*.ipynb")
    how = (path.name, "--Voila.ip=127.0.0.1")
    page = chromium.new_page(viewport=WINDOW)
    page.set_default_timeout(LIMIT)
    with served(tmp_path, "voila", *how) as address, watched(page, kept, "voila"):
        page.goto(address, wait_until="commit", timeout=CELLS)  # it comes as the cells run
        page.locator("img.widget-image").first.wait_for(timeout=CELLS)
        assert not page.locator(".jp-CodeCell .jp-InputArea").count()  # the code is left out
        body = page.locator("body")
        body.evaluate(WATCH)
        name = move(body, body.locator(CONTROLS).first)
        record_property("milliseconds", {name: first_picture(page)})
        page.screenshot(path=kept / "voila.png")
