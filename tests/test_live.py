"""Watching a run: the picture is the run's own, and text is left to terminals."""

import asyncio
import io
from types import SimpleNamespace

import pytest
import torch
from helpers import run_asleep
from PIL import Image

from dsd_lab import SDS, Camera, GaussianMixture, ImageSet, Scene, distill
from dsd_lab.distill import Loop
from dsd_lab.viz.controls import choice_control, seed_control
from dsd_lab.viz.landscape import curves
from dsd_lab.viz.live import KEPT, Experiment, Live, as_png, watch
from dsd_lab.viz.pictures import sheet


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


# ---- runs that controls begin --------------------------------------------------------------------


class Counting:
    """Experiments of some steps, which keep what was begun, taken and shown."""

    def __init__(self, steps=40, wrong=None):
        self.steps, self.wrong, self.begun, self.taken, self.shown = steps, wrong, [], [], []

    def __call__(self, seed, method):
        if method == "never":
            raise ValueError("no <such> method")
        self.begun.append((seed, method))
        run = SimpleNamespace(at=0)

        def steps():
            for k in range(1, self.steps + 1):
                if k == self.wrong:
                    raise ValueError("x is not finite")
                run.at = k
                self.taken.append(seed)
                yield k

        def look():
            self.shown.append((seed, run.at))
            return sheet({"a": [torch.full((3, 4, 4), seed / 31)]}), f"seed {seed}: {run.at}"

        return Experiment(steps(), look, lambda step: {"k": step})


def watched(**how):
    begin = Counting(**how)
    controls = {"seed": seed_control(1), "method": choice_control("method", ["SDS", "never"])}
    return watch(begin, **controls), begin


def test_a_watched_run_goes_to_its_end_where_nobody_can_wait():
    explorer, begin = watched(steps=5)
    assert explorer.fact == "seed 1: 5" and explorer.player.state == "finished"
    assert begin.shown == [(1, 0), (1, 5)]  # its beginning, and its end
    assert bytes(explorer.curve.value[:4]) == b"\x89PNG"
    assert "5, finished" in explorer.children[2].children[-1].value
    assert explorer.set(seed=2) == "seed 2: 5"
    assert explorer.set(seed=1) == "seed 1: 5"
    assert begin.begun == [(1, "SDS"), (2, "SDS")]  # what came of a seed is known
    bundle, _ = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == "Explorer(seed, method)" and "image/png" in bundle


def test_curves_have_their_names_and_the_words_at_their_axis(monkeypatch):
    asked = []

    def noted(*of, **how):
        asked.append(of)
        return curves(*of, **how)

    monkeypatch.setattr("dsd_lab.viz.live.curves", noted)
    figure = sheet({"a": [torch.zeros(3, 4, 4)]})
    run = Experiment(iter([3, 5]), lambda: (figure, ""), lambda k: {"loss": k}, "its size")
    assert run.take() and not run.seen().curve  # no curve of one point
    assert run.take() and run.seen().curve
    ((steps, lines, *labels),) = asked
    assert list(steps) == [1, 2] and lines == {"loss": [3, 5]} and labels == ["step", "its size"]


def test_buttons_step_start_and_reset_a_run():
    explorer, begin = watched(steps=3)
    buttons = explorer.buttons
    assert buttons["start"].description == "Again"
    buttons["reset"].click()
    assert explorer.fact == "seed 1: 0" and buttons["start"].description == "Start"
    for k in (1, 2, 3):
        buttons["step"].click()
        assert explorer.fact == f"seed 1: {k}" and explorer.player.state == "paused"
    buttons["step"].click()
    assert explorer.player.state == "finished"
    buttons["start"].click()
    assert len(begin.begun) == 3 and explorer.fact == "seed 1: 3"


async def until(happened):
    """Let the loop run until it has: a busy machine may take its time."""
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


def test_a_run_lets_others_speak_and_is_dropped_for_the_newest():
    async def reader():
        explorer, begin = watched(steps=10**9)
        assert begin.shown == [(1, 0)] and not begin.taken  # at once, before any step
        assert explorer.buttons["start"].description == "Pause"
        await until(lambda: begin.taken and begin.shown[-1] == (1, len(begin.taken)))
        for seed in range(2, 9):  # a storm
            explorer.controls["seed"].value = seed
            await asyncio.sleep(0)
        before = len(begin.taken)
        assert explorer.player.state == "paused" and len(begin.begun) == 1
        await until(lambda: len(begin.taken) > before)
        assert [seed for seed, _ in begin.begun] == [1, 8] and set(begin.taken[before:]) == {8}
        explorer.buttons["start"].click()  # it pauses
        held = len(begin.taken)
        await asyncio.sleep(0.05)
        assert len(begin.taken) == held and explorer.fact.startswith("seed 8: ")
        explorer.buttons["start"].click()
        await until(lambda: len(begin.taken) > held)
        assert len(begin.begun) == 2
        explorer.player.turn("paused")

    run_asleep(reader())


def test_who_asks_a_run_that_goes_gets_its_end():
    async def cell():
        explorer, begin = watched(steps=30)
        assert explorer.fact == "seed 1: 30"
        assert explorer.set(seed=3) == "seed 3: 30"
        await asyncio.sleep(0.05)
        assert len(begin.taken) == 60

    run_asleep(cell())


@pytest.mark.parametrize("at", ["the beginning", "a step"])
def test_what_goes_wrong_in_a_run_is_told_and_can_be_left(at):
    explorer, _ = watched(steps=5, wrong=3 if at == "a step" else None)
    if at == "the beginning":
        explorer.set(method="never")
    told = {
        "the beginning": "ValueError: no <such> method",
        "a step": "ValueError: x is not finite",
    }
    assert explorer.fact == told[at] and explorer.player.state == "failed"
    assert explorer.picture.layout.display == "none"
    assert explorer.curve.layout.visibility == "hidden"
    if at == "the beginning":
        explorer.buttons["start"].click(), explorer.buttons["step"].click()
        assert explorer.fact == told[at]
        assert explorer.set(method="SDS") == "seed 1: 5"
        assert explorer.picture.layout.display is None


def test_a_copy_moves_alone_and_knows_what_the_other_found():
    explorer, begin = watched(steps=4)
    other = explorer.copy()
    assert other.set(seed=5) == "seed 5: 4"
    assert explorer.values == (1, "SDS") and explorer.fact == "seed 1: 4"
    assert explorer.set(seed=5) == "seed 5: 4" and len(begin.begun) == 2
    explorer.set(seed=1)
    explorer.buttons["reset"].click()
    assert explorer.fact == "seed 1: 0"
    assert explorer.copy().fact == "seed 1: 4"  # of what is known nothing was lost
    assert explorer.set(seed=5) == "seed 5: 4"


def shown_moments(steps):
    """A watched run of which a control chooses the moment shown, and what was begun and shown."""
    begun, shown = [], []

    def begin(seed):
        begun.append(seed)
        at = []

        def look(moment):
            shown.append((seed, moment, len(at)))
            return sheet({"a": [torch.zeros(3, 4, 4)]}), f"seed {seed}, {moment} of {len(at)}"

        return Experiment((at.append(k) for k in range(steps)), look)

    moment = choice_control("moment", ["begin", "end"])
    return watch(begin, shows=("moment",), seed=seed_control(1), moment=moment), begun, shown


def test_a_control_that_only_shows_begins_no_run():
    explorer, begun, shown = shown_moments(4)
    assert explorer.set(moment="end") == "seed 1, end of 4" and begun == [1]
    assert explorer.set(seed=2, moment="begin") == "seed 2, begin of 4" and begun == [1, 2]
    assert explorer.set(seed=1) == "seed 1, begin of 4"  # known, and looked at anew
    assert explorer.set(moment="end") == "seed 1, end of 4"
    assert explorer.copy().set(seed=2) == "seed 2, end of 4" and begun == [1, 2]
    explorer.buttons["reset"].click()
    assert explorer.set(moment="begin") == "seed 1, begin of 0" and begun == [1, 2, 1]
    assert explorer.player.state == "paused"
    with pytest.raises(ValueError, match='did you mean "seed"'):
        watch(lambda seed: None, shows=("seeds",), seed=seed_control(0))


def test_a_run_goes_on_while_another_moment_is_looked_at():
    async def reader():
        explorer, begun, shown = shown_moments(10**9)
        await until(lambda: shown[-1][2] > 0)
        explorer.controls["moment"].value = "end"
        await until(lambda: shown[-1][1] == "end")
        held = shown[-1][2]
        await until(lambda: shown[-1][2] > held)
        assert begun == [1] and explorer.player.state == "running"
        explorer.controls["seed"].value = 2  # away, and back before it is heard
        explorer.controls["seed"].value = 1
        await until(lambda: len(begun) > 1)
        assert begun == [1, 1]
        explorer.player.turn("paused")

    run_asleep(reader())


def test_only_some_runs_that_ended_are_kept():
    explorer, begin = watched(steps=2)
    for seed in range(2, KEPT + 2):
        explorer.set(seed=seed)
    assert len(begin.begun) == KEPT + 1
    explorer.set(seed=2)
    assert len(begin.begun) == KEPT + 1
    explorer.set(seed=1)
    assert len(begin.begun) == KEPT + 2


def test_a_scenes_run_is_watched_too():
    def begin(seed):
        run = Turning(3)
        views = run.scene.images((Camera(0, 0),), 8)
        return Experiment(run, lambda: (sheet({"": views}), f"step {run.index}"))

    explorer = watch(begin, seed=seed_control(0))
    assert explorer.fact == "step 3" and not explorer.curve.value  # nothing is measured
