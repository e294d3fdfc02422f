"""Watching a run: the picture is the run's own, and text is left to terminals."""

import io

import torch
from PIL import Image

from dsd_lab import SDS, Camera, GaussianMixture, ImageSet, Scene, distill
from dsd_lab.distill import Loop
from dsd_lab.viz.live import Live, as_png


class Turning(Loop):
    """A run of nothing, on a scene."""

    def __init__(self, steps):
        super().__init__(GaussianMixture({"a": [[0.0]]}), steps)
        self.scene = Scene()

    def step(self):
        self.index += 1
        return self.index

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def decoded(png):
    return (
        torch.from_numpy(__import__("numpy").array(Image.open(io.BytesIO(png)))).permute(2, 0, 1)
        / 255
    )


def test_the_picture_follows_the_run(small_world):
    live = Live(seconds=0.0, notebook=True)
    run = distill(ImageSet(small_world), "warm", SDS(), [0, 1], steps=3)
    seen = []
    run.finish(lambda run: (live(run), seen.append(live.picture.value)))
    assert len(set(seen)) == 3
    assert live.line.value == "step 3 of 3"
    assert torch.allclose(
        decoded(live.picture.value), torch.cat(list(run.images), 2), atol=0.5 / 255 + 1e-6
    )


def test_a_scene_is_seen_from_its_cameras():
    camera = (Camera(30, 10), Camera(200, 10))
    live, run = Live(cameras=camera, size=16, notebook=True), Turning(1)
    run.finish(live)
    assert live.picture.value == as_png(run.scene.images(camera, 16))
    assert Image.open(io.BytesIO(live.picture.value)).size == (32, 16)


def test_it_does_not_draw_more_often_than_told(small_world, monkeypatch):
    clock = iter([0.0, 0.0, 0.0, 0.4, 0.8, 1.2, 1.3, 1.4, 1.5, 1.6])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    live, drawn = Live(seconds=1.0, notebook=True), []
    live.look = lambda run: drawn.append(run.index) or torch.zeros(1, 3, 8, 8)
    Turning(5).finish(live)
    assert drawn == [1, 4, 5]  # the first, the one a second later, the last


def test_elsewhere_it_writes_to_terminals_alone(capsys):
    run = distill(GaussianMixture({"a": [[0.0, 0.0]]}), "a", SDS(cfg=1.0), [0], steps=3).finish(
        Live(notebook=False)
    )
    assert run.finished and capsys.readouterr() == ("", "")
