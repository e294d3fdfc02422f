"""Watching a run as it goes: the current picture and the time left in a notebook, a line of text
elsewhere.
"""

import time

import ipywidgets as widgets
from IPython.display import display
from torch import Tensor
from tqdm import tqdm

from ..cameras import Camera, orbit
from ..distill.pictures import Loop, Run
from ..notebook import as_png, in_notebook
from .stills import captioned, with_still


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
