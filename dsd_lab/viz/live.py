"""Watching a run as it goes: the current picture and the time left in a notebook, a line of text
elsewhere; and runs that controls begin and buttons stop, step and begin anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import ipywidgets as widgets
from IPython.display import display
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from ..cameras import Camera, orbit
from ..checks import choice
from ..distill.pictures import Loop, Run
from ..notebook import as_png, in_notebook
from .controls import SETTLE, Explorer, running_loop, twin
from .landscape import curves
from .pictures import png
from .stills import above, captioned, with_still
from .style import looks_of

KEPT = 16  # runs that have ended, at most, to be shown when their values come again
SLICE = 0.03  # seconds of steps between two looks at what controls and buttons say


class Watched(widgets.VBox):
    """A line and a picture, with a still of them for where no kernel runs."""

    def _repr_mimebundle_(self, **settings):
        line, picture = self.children
        png = captioned(picture.value, line.value) if picture.value else None
        return with_still(super()._repr_mimebundle_(**settings), png, line.value)


class Live:
    """A progress callback: `text_to_3d(..., progress=Live())`, `run.finish(Live())`.

    In a notebook it displays a picture that follows the run, a new one at most every `seconds`;
    elsewhere it is a bar on stderr, where that is a terminal. cameras: from where a scene is shown.
    size: side of its pictures in pixels. notebook: None finds out.
    """

    def __init__(
        self,
        seconds: float = 1.0,
        cameras: tuple[Camera, ...] = orbit(4),
        size: int = 96,
        notebook: bool | None = None,
    ):
        self.seconds, self.cameras, self.size = seconds, cameras, size
        self.notebook = in_notebook() if notebook is None else notebook
        self.began = self.bar = self.handle = None

    def __call__(self, run: Loop) -> None:
        if self.began is None:
            self._begin(run)
        now, done = time.perf_counter(), run.index >= run.steps
        if self.bar is not None:
            self.bar.update(run.index - self.bar.n)
            if done:
                self.bar.close()
        elif done or now - self.shown >= self.seconds:
            taken = run.index - self.first
            left = (now - self.began) * (run.steps - run.index) / taken if taken else float("nan")
            rest = "" if done else f", about {left:.0f} s left"
            self.line.value = f"step {run.index} of {run.steps}{rest}"
            self.picture.value = as_png(self.look(run))
            self.shown = time.perf_counter()
            if done and self.handle is not None:  # what is kept of it shows how it ended
                self.handle.update(self.box)

    def _begin(self, run):
        self.began = time.perf_counter()
        self.first = run.index - 1  # the callback comes after a step
        if not self.notebook:
            self.bar = tqdm(total=run.steps, initial=self.first, disable=None)
            return
        self.line, self.picture = widgets.HTML(), widgets.Image(format="png")
        self.shown = self.began - self.seconds
        self.box = Watched([self.line, self.picture])
        self.handle = display(self.box, display_id=True)

    def look(self, run: Loop) -> Tensor:
        """What the run has made so far: the pictures of a `Run`, or the scene from `cameras`; (n,
        3, H, W) in [0, 1].
        """
        return run.images if isinstance(run, Run) else run.scene.images(self.cameras, self.size)


class Seen(NamedTuple):
    """How far a run is: its picture and its curves (PNG, empty where there are none), a fact, and
    how many steps it has taken.
    """

    picture: bytes
    curve: bytes
    fact: str
    index: int


@dataclass
class Experiment:
    """What is watched: `steps` are taken one by one, `look()` returns a figure of how far they are
    and a fact, `measure(step)` numbers by name, which are drawn over the steps as curves, with
    `y_label` at their axis.

    steps: a run, or any iterator; what is slow to begin, it begins at its first step. look: takes
    the values of the controls that `watch` was told to show. index: how many have been taken.
    """

    steps: Iterator
    look: Callable[..., tuple[Figure, str]]
    measure: Callable[[object], Mapping[str, float]] = lambda step: {}
    y_label: str = ""
    index: int = field(default=0, init=False)
    curves: dict[str, list[float]] = field(default_factory=dict, init=False)

    def take(self) -> bool:
        """One step and what is measured of it; False after the last."""
        for step in self.steps:
            self.index += 1
            for name, value in self.measure(step).items():
                self.curves.setdefault(name, []).append(float(value))
            return True
        return False

    def seen(self, **shown) -> Seen:
        """How far it is, drawn."""
        figure, fact = self.look(**shown)
        steps, drawn = range(1, self.index + 1), b""
        if self.index > 1 and self.curves:
            colours = [colour for colour, *_ in looks_of(self.curves).values()]
            labels, size = ("step", self.y_label), (5.6, 1.9)
            drawn = png(curves(steps, self.curves, *labels, size=size, colours=colours))
        return Seen(png(figure), drawn, fact, self.index)


class Player:
    """Drives a run: begins, stops and steps it, a few steps at a time in the kernel's event loop,
    so that controls and buttons are heard in between; where there is no loop, to its end.

    begin: makes the run. see, fail, become: told which run is to be shown as it is now, what went
    wrong, and the state ("paused", "running", "finished" or "failed").
    """

    def __init__(
        self,
        begin: Callable[[], Experiment],
        see: Callable[[Experiment], None],
        fail: Callable[[Exception], None],
        become: Callable[[str], None],
    ):
        self.begin, self.see, self.fail, self.become = begin, see, fail, become
        self.state, self.run, self._due = "paused", Experiment(iter(()), lambda: None), 0.0
        self.lock = threading.RLock()  # JupyterLab's controls act beside the cells, in a thread

    def reset(self) -> None:
        """A new run, at its beginning."""
        with self.lock:
            self.turn("paused")
            self._guarded(self._begin)

    def start(self) -> None:
        """Go on, or stop a run that goes; after the end, begin anew."""
        with self.lock:
            if self.state == "running":
                return self.turn("paused")
            if self._ready():
                self.turn("running")
                if loop := running_loop():
                    loop.call_soon(self._advance, self.run)
                else:
                    self.finish()

    def step(self) -> None:
        """Take one step, show it, and stop."""
        with self.lock:
            if self._ready():
                self.turn("paused")
                self._guarded(lambda: self._look() if self.run.take() else self._finish())

    def look(self, run: Experiment | None = None) -> None:
        """Show the run as it is now, or in its place another that has ended."""
        with self.lock:
            if run is not None:
                self.run = run
                self.turn("finished")
            self._guarded(self._look)

    def finish(self) -> None:
        """Drive a run that goes to its end."""
        with self.lock:
            if self.state == "running":
                self._guarded(self._finish)

    def turn(self, state: str) -> None:
        """Be in another state, and tell it."""
        with self.lock:
            self.state = state
            self.become(state)

    def _ready(self) -> bool:
        """Whether there is a run to take steps of; after one's end another is begun."""
        if self.state in ("finished", "failed"):
            self.reset()
        return self.state != "failed"

    def _begin(self) -> None:
        self.run = self.begin()
        self._look()

    def _advance(self, run: Experiment) -> None:
        """Take steps for a moment, look now and then, and come again, while this run goes."""
        with self.lock:
            if self.state == "running" and run is self.run:
                self._guarded(self._some)
                running_loop().call_later(0.001, self._advance, run)

    def _some(self) -> None:
        until = time.perf_counter() + SLICE
        while time.perf_counter() < until:
            if not self.run.take():
                return self._finish()
        if time.perf_counter() >= self._due:
            self._look()

    def _finish(self) -> None:
        while self.run.take():
            pass
        self.turn("finished")
        self._look()

    def _look(self) -> None:
        """Show how far the run is. For as long as that takes, no other look is due."""
        began = time.perf_counter()
        self.see(self.run)
        self._due = 2 * time.perf_counter() - began

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:
            self.turn("failed")
            self.fail(error)


class LiveExplorer(Explorer):
    """Controls that begin a run or say what of it is shown, buttons that stop, step and begin it
    anew, and the picture and curves that follow it; see `watch`. Whoever asks for its fact gets
    that of the run's end.
    """

    def __init__(
        self,
        begin: Callable[..., Experiment],
        controls: Mapping[str, widgets.Widget],
        greyed: Mapping[str, Callable[[dict], str]] | None = None,
        shows: Collection[str] = (),
        finished: dict[tuple, Experiment] | None = None,
    ):
        self._shows = frozenset(choice("control", name, controls) for name in shows)
        self._finished = {} if finished is None else finished  # by the values that began them
        self._of = None  # the values that began the run that is shown
        self.player = Player(self._begin, self._see, self._fail, self._become)
        self.buttons = {
            "start": _button("Start", "play", self.player.start, "go on, or begin anew"),
            "step": _button("Step", "step-forward", self.player.step, "take one step, and stop"),
            "reset": _button("Reset", "undo", self.player.reset, "back to the beginning, and wait"),
        }
        wide = widgets.Layout(width="max-content", display="none")
        self.curve, self._progress = widgets.Image(format="png", layout=wide), widgets.HTML()
        self._seen = Seen(b"", b"", "", 0)
        super().__init__(begin, controls, SETTLE, greyed)
        row = widgets.HBox([*self.buttons.values(), self._progress])
        self.children = [*controls.values(), row, self._line, self.picture, self.curve]

    def copy(self) -> LiveExplorer:
        twins = {name: twin(control) for name, control in self.controls.items()}
        return type(self)(self._draw, twins, self._greyed.why, self._shows, self._finished)

    @property
    def _asked(self) -> tuple:
        """The values that begin a run."""
        return tuple(self._now(shown=False).values())

    def refresh(self) -> None:
        """Begin anew for the controls' values and go on, unless it is known what comes of them, or
        only another look at the same run is asked for.
        """
        with self.player.lock:
            self._rest()
            if self._shows and self._asked == self._of:
                return self.player.look()
            self._of = self._asked
            if self._of in self._finished:
                return self.player.look(self._finished[self._of])
            self.player.reset()
            if self.player.state == "paused":
                self.player.start()

    @property
    def fact(self) -> str:
        """What is stated at the end of the run, or where it was stopped."""
        if self._waiting is not None:
            self.refresh()
        self.player.finish()
        return self._fact

    def _changed(self) -> None:
        if self._asked != self._of:  # nobody waits for the old run any more
            self.player.turn("paused")
            self._of = None
        super()._changed()

    def _begin(self) -> Experiment:
        self._rest()
        self._of = self._asked
        return self._draw(**self._now(shown=False))

    def _now(self, shown: bool) -> dict:
        """The values of the controls that say what is shown, or of those that begin a run."""
        named = self.controls.items()
        return {name: c.value for name, c in named if (name in self._shows) == shown}

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        self.curve.layout.visibility = "hidden"

    def _see(self, run: Experiment) -> None:
        seen = run.seen(**self._now(shown=True))
        self._seen, self.picture.value = seen, seen.picture
        if seen.curve:
            self.curve.value, self.curve.layout.display = seen.curve, None
        # its place stays, so that nothing below it jumps when a run begins anew
        self.curve.layout.visibility = "visible" if seen.curve else "hidden"
        self._tell(seen.fact)
        self._become(self.player.state)
        if self.player.state == "finished":
            self._finished[self._of] = run
            if len(self._finished) > KEPT:
                del self._finished[next(iter(self._finished))]

    def _become(self, state: str) -> None:
        start = self.buttons["start"]
        start.description, start.icon = LABELS[state]
        self._progress.value = f"step {self._seen.index}, {state}"

    def _still(self) -> bytes:
        picture, curve, *_ = self._seen
        return above(picture, curve) if curve else picture


LABELS = {
    "running": ("Pause", "pause"),
    "paused": ("Start", "play"),
    "finished": ("Again", "play"),
    "failed": ("Again", "play"),
}


def _button(label: str, icon: str, act: Callable[[], None], tooltip: str) -> widgets.Button:
    button = widgets.Button(description=label, icon=icon, tooltip=tooltip)
    button.layout.width = "90px"
    button.on_click(lambda clicked: act())
    return button


def watch(
    begin: Callable[..., Experiment],
    greyed: Mapping[str, Callable[[dict], str]] | None = None,
    shows: Collection[str] = (),
    **controls: widgets.Widget,
) -> LiveExplorer:
    """A live run: `begin(**values)` returns an `Experiment`, begun for the controls' values.

    Moving a control drops the run under way, and begins and shows another. The last `KEPT` runs
    that ended are kept, and shown when their values come again. shows: names of controls that begin
    no run: their values go to the experiment's `look`, and moving them looks at the run anew.
    greyed, controls: as in `controls.explore`.
    """
    return LiveExplorer(begin, controls, greyed, shows)
