"""Where no kernel runs: each widget and each plotly figure of a stored notebook has a picture."""

import asyncio
import base64
import io
import re

import nbformat
import numpy as np
import plotly.io as pio
import pytest
import torch
from helpers import make_mixture, run_asleep
from PIL import Image

from dsd_lab import SDS, Scene, distill
from dsd_lab.course.execute import execute
from dsd_lab.scene import GridField
from dsd_lab.viz import scenes
from dsd_lab.viz.controls import explore, seed_control
from dsd_lab.viz.live import Live
from dsd_lab.viz.pictures import sheet
from dsd_lab.viz.points import trajectories

WIDGET, PLOTLY = "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"


def draw(seed):
    return sheet({"a": [torch.full((3, 8, 8), seed / 31)]}), f"the seed is {seed}"


def still_of(bundle) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))


@pytest.fixture
def mimetype(monkeypatch):
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")


def test_an_explorers_still_shows_its_picture_and_settings():
    explorer = explore(draw, seed=seed_control(3))
    first, words = explorer._repr_mimebundle_()
    assert {WIDGET, "image/png", "text/plain"} == set(first)
    assert words == {"image/png": {"alt": "seed 3. the seed is 3"}}
    explorer.set(seed=9)
    second, _ = explorer._repr_mimebundle_()
    picture = np.asarray(Image.open(io.BytesIO(explorer.picture.value)).convert("RGB"), int)
    still = np.asarray(still_of(second).convert("RGB"), int)
    shown = still[-picture.shape[0] :, : picture.shape[1]]
    assert abs(shown - picture).max() <= 16  # in 256 colours
    assert (still[: -picture.shape[0]] < 200).any()  # the line of text
    assert first["image/png"] != second["image/png"]


@pytest.mark.parametrize("kind", ["trajectories", "mesh"])
def test_a_plotly_figures_still(kind, mimetype):
    if kind == "mesh":
        figure = scenes.mesh_figure(Scene(GridField(12)).mesh(1.0, 16))
    else:
        mixture = make_mixture()
        paths = {"one": torch.randn(5, 3, 2), "two": torch.randn(5, 3, 2)}
        figure = trajectories(mixture, paths, title="paths")
    bundle, words = figure._repr_mimebundle_()
    assert words["image/png"]["alt"]
    assert set(bundle) == {PLOTLY, "image/png"}
    still = np.asarray(still_of(bundle).convert("RGB"))
    assert min(still.shape[:2]) > 150 and (still < 200).any()
    figure.update_layout(width=300)  # still a plotly figure
    assert figure._repr_mimebundle_()[0][PLOTLY]["layout"]["width"] == 300


def test_elsewhere_a_plotly_figure_makes_no_still(monkeypatch):
    monkeypatch.setattr(pio.renderers, "default", "")
    drawn = []
    figure = trajectories(make_mixture(), {"a": torch.zeros(2, 1, 2)})
    figure._still = lambda: drawn.append(1)
    assert not figure._repr_mimebundle_()[0] and not drawn


def test_what_is_kept_of_a_watched_run_shows_how_it_ended(small_world, monkeypatch):
    from dsd_lab import ImageSet

    shown = []

    class Handle:
        def update(self, box):
            shown.append(box._repr_mimebundle_()[0])

    def display(box, display_id):
        shown.append(box._repr_mimebundle_()[0])
        return Handle()

    monkeypatch.setattr("dsd_lab.viz.live.display", display)
    distill(ImageSet(small_world), "warm", SDS(), [0], 3).finish(Live(notebook=True))
    first, last = shown
    assert WIDGET in first and "image/png" not in first  # there was nothing to show
    assert WIDGET in last and still_of(last).height > 8


def test_of_a_drags_values_the_newest_is_drawn():
    drawn = []

    def slow(seed):
        drawn.append(seed)
        return draw(seed)

    explorer = explore(slow, cache=0, settle=0.3, seed=seed_control(0))
    assert drawn == [0]

    async def drag():
        for seed in range(1, 31):
            explorer.controls["seed"].value = seed
            await asyncio.sleep(0)  # the kernel reads its next message
        assert drawn == [0]
        await asyncio.sleep(0.6)
        assert drawn == [0, 30]
        explorer.controls["seed"].value = 5
        assert explorer.fact == "the seed is 5"  # whoever asks does not wait
        assert explorer.set(seed=6) == "the seed is 6"
        await asyncio.sleep(0.6)
        assert drawn == [0, 30, 5, 6]

    run_asleep(drag())
    assert explorer.set(seed=7) == "the seed is 7"  # without a loop at once
    assert scenes.orbit_viewer(Scene(GridField(8)), 32)._settle > 0


@pytest.mark.slow
def test_a_stored_lesson_shows_a_picture_for_each(tmp_path):
    """Executed as lessons are, opened and not run; and as a static page."""
    from nbconvert import HTMLExporter

    code = [
        "import torch\nfrom dsd_lab import GaussianMixture\n"
        "from dsd_lab.viz import points\nfrom dsd_lab.viz.controls import explore, seed_control\n"
        "from dsd_lab.viz.pictures import sheet",
        "def draw(seed):\n    return sheet({'a': [torch.full((3, 8, 8), seed / 31)]}), 'a fact'\n"
        "explore(draw, seed=seed_control(3))",
        "points.trajectories(GaussianMixture({'a': [[0.0, 0.0]]}), {'p': torch.zeros(3, 1, 2)})",
    ]
    new = nbformat.v4
    path = tmp_path / "lesson.ipynb"
    path.write_text(nbformat.writes(new.new_notebook(cells=[new.new_code_cell(c) for c in code])))
    execute(path)
    notebook = nbformat.read(path, as_version=4)
    outputs = [output.data for cell in notebook.cells for output in cell.outputs]
    assert [set(data) for data in outputs] == [{"image/png", "text/plain"}, {"image/png", PLOTLY}]
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert len(re.findall(r'<img[^>]*src="data:image/png', page)) == 2
    assert "model not found" not in page
