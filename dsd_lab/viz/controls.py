"""Controls that recompute: seed, t, CFG and method, over a pure function that draws a figure and
states a fact.

No Output widget and no display updates: a control's change writes a picture and a line of text, in
a browser and under a test alike. The same settings are drawn once.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from html import escape

import ipywidgets as widgets
from matplotlib.figure import Figure

from ..checks import choice
from .pictures import png
from .stills import captioned, with_still

WIDE = {"layout": widgets.Layout(width="420px"), "style": {"description_width": "90px"}}
SETTLE = 0.01  # seconds for which the newest value is waited for
SLOW = 0.05  # seconds a drawing may take before a quick one comes first
SHARPEN = 0.5  # seconds of rest after which a quick drawing is made whole


def seed_control(value: int = 0, last: int = 31) -> widgets.IntSlider:
    """A slider over seeds 0..last."""
    how = {"description": "seed", "tooltip": "which starting noise: each seed has its own"}
    return widgets.IntSlider(value, 0, last, continuous_update=False, **how, **WIDE)


def t_control(levels: Sequence[int], value: int | None = None) -> widgets.SelectionSlider:
    """A slider over the timesteps of a path, noisiest on the left."""
    levels = [int(t) for t in levels]
    value = levels[len(levels) // 2] if value is None else min(levels, key=lambda t: abs(t - value))
    how = {"description": "t", "tooltip": "timestep: 999 is pure noise, 0 the clean picture"}
    return widgets.SelectionSlider(
        options=levels, value=value, continuous_update=False, **how, **WIDE
    )


def cfg_control(value: float = 7.5, largest: float = 30.0) -> widgets.FloatSlider:
    """A slider over guidance, from 1 (none) up."""
    return widgets.FloatSlider(
        value,
        min=1.0,
        max=largest,
        step=0.5,
        description="CFG",
        tooltip="guidance: 1 is none, larger follows the prompt more",
        continuous_update=False,
        readout_format=".1f",
        **WIDE,
    )


def steps_control(value: int, most: int) -> widgets.IntSlider:
    """A slider over how many steps a run takes."""
    how = {"description": "steps", "tooltip": "steps of the optimiser"}
    return widgets.IntSlider(value, 20, most, 20, continuous_update=False, **how, **WIDE)


def fraction_control(name: str, value: float) -> widgets.FloatSlider:
    """A slider over fractions of the schedule."""
    return widgets.FloatSlider(
        value,
        min=0.04,
        max=1.0,
        step=0.02,
        description=name,
        tooltip=f"{name}, as a fraction of the schedule",
        continuous_update=False,
        readout_format=".2f",
        **WIDE,
    )


def choice_control(name: str, options: Sequence[str], value: str | None = None) -> widgets.Dropdown:
    """A menu, of methods or prompts."""
    how = {"description": name, "tooltip": f"choose: {name}"}
    return widgets.Dropdown(options=list(options), value=value or options[0], **how, **WIDE)


def twin(control: widgets.Widget) -> widgets.Widget:
    """A control like another, at its value, that moves alone."""
    derived = {"comm", "keys", "log", "index", "label"}
    traits = control.trait_values().items()
    return type(control)(**{k: v for k, v in traits if k[0] != "_" and k not in derived})


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that this is called from, as in a kernel; None where there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Greyed:
    """Controls that do not always matter: `why[name](values)` says why one has no effect, or ""."""

    def __init__(
        self,
        controls: Mapping[str, widgets.Widget],
        why: Mapping[str, Callable[[dict], str]] | None,
    ):
        self.controls, self.why = controls, dict(why or {})
        self.tooltips = {name: controls[name].tooltip for name in self.why}

    def apply(self) -> str:
        """Disable those that have no effect at the others' values; the reasons, as HTML."""
        values = {name: control.value for name, control in self.controls.items()}
        reasons = ""
        for name, why in self.why.items():
            control, reason = self.controls[name], why(values)
            control.disabled, control.tooltip = bool(reason), reason or self.tooltips[name]
            if reason:
                reasons += f"<br>{escape(control.description)} is grey: {escape(reason)}"
        return reasons


class Explorer(widgets.VBox):
    """Controls above a picture and a fact, all drawn by one function; see `explore`.

    draw: of the controls' values in their order; returns a PNG and a fact.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[bytes, str]],
        controls: Mapping[str, widgets.Widget],
        settle: float = SETTLE,
        greyed: Mapping[str, Callable[[dict], str]] | None = None,
        quick: Callable[..., tuple[bytes, str]] | None = None,
    ):
        self.controls, self._draw, self._quick = dict(controls), draw, quick
        self._settle, self._greyed, self._took = settle, Greyed(self.controls, greyed), 0.0
        self._waiting, self._resting, self._fact, self._line = None, False, "", widgets.HTML()
        self._lock = threading.RLock()  # JupyterLab's controls act beside the cells, in a thread
        self.picture = widgets.Image(format="png", layout=widgets.Layout(width="max-content"))
        super().__init__([*self.controls.values(), self._line, self.picture])
        for control in self.controls.values():
            control.observe(lambda change: self._changed(), names="value")
        self.refresh()
        self._took = max(self._took, SLOW)  # what was drawn first may have been known already

    @property
    def values(self) -> tuple:
        """The controls' values, in their order."""
        return tuple(control.value for control in self.controls.values())

    def copy(self) -> "Explorer":
        """Another one, at the same values, to be moved without moving this; what one of them has
        drawn is drawn for both.
        """
        twins = {name: twin(control) for name, control in self.controls.items()}
        return type(self)(self._draw, twins, self._settle, self._greyed.why, self._quick)

    def _changed(self) -> None:
        """Draw now, or, where a kernel's loop runs, once its messages are read: a drag sends more
        values than can be drawn, and only the newest counts.
        """
        if running_loop() is None:
            self.refresh()
        elif self._waiting is None or self._resting:
            self._wait(self._settle, self._newest)

    def _newest(self) -> None:
        """Draw, or draw quickly at first where drawing is slow."""
        if self._quick is None or self._took < SLOW:
            return self.refresh()
        self._show(self._quick)
        self._wait(SHARPEN, self.refresh, resting=True)

    def _wait(self, seconds: float, act: Callable[[], None], resting: bool = False) -> None:
        """Act after a while; resting: unless a control moves before."""
        self._rest()
        self._waiting, self._resting = running_loop().call_later(seconds, act), resting

    def _rest(self) -> None:
        """Wait for nothing any more."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = None

    @property
    def fact(self) -> str:
        """What is stated for the controls' values, drawn first if it has not been."""
        if self._waiting is not None:
            self.refresh()
        return self._fact

    def refresh(self) -> None:
        """Draw for the controls' values, and show an error in the fact's place, since a callback
        has no other.
        """
        with self._lock:
            self._rest()
            began = time.perf_counter()
            self._show(self._draw)
            # what is known already is drawn at once, and says little of what comes next
            self._took = max(time.perf_counter() - began, self._took / 2)

    def _show(self, draw: Callable[..., tuple[bytes, str]]) -> None:
        try:
            self.picture.value, fact = draw(*self.values)
            self._tell(fact)
        except Exception as error:
            self._fail(error)

    def _tell(self, fact: str) -> None:
        """The fact, and below it why controls are grey."""
        self._fact, self._line.value = fact, escape(fact) + self._greyed.apply()
        self.picture.layout.display = None

    def _fail(self, error: Exception) -> None:
        """What went wrong, in words, and no picture, since the one there is of other values."""
        self._greyed.apply()
        self._fact = f"{type(error).__name__}: {error}"
        self._line.value = f'<b style="color:#b00">This cannot be shown.</b> {escape(self._fact)}'
        self.picture.layout.display = "none"

    def set(self, **values) -> str:
        """Move controls as a hand would, and return the fact that then stands below them."""
        for name, value in values.items():
            self.controls[choice("control", name, self.controls)].value = value
        return self.fact

    def _still(self) -> bytes:
        """The picture that is kept of it."""
        return self.picture.value

    def _repr_mimebundle_(self, **settings):
        """The widget, and a still of it for where no kernel runs."""
        fact = self.fact
        chosen = ", ".join(f"{c.description} {c.value}" for c in self.controls.values())
        png = captioned(self._still(), f"{chosen}\n{fact}") if self.picture.value else None
        return with_still(super()._repr_mimebundle_(**settings), png, f"{chosen}. {fact}")

    def __repr__(self) -> str:  # constant, so that a notebook's stored output stays the same
        return f"Explorer({', '.join(self.controls)})"


def explore(
    draw: Callable[..., tuple[Figure, str]],
    cache: int = 64,
    settle: float = SETTLE,
    greyed: Mapping[str, Callable[[dict], str]] | None = None,
    quick: Callable[..., tuple[Figure, str]] | None = None,
    **controls: widgets.Widget,
) -> Explorer:
    """A live figure: `draw(**values)` returns a figure and a fact, and is called with the controls'
    values.

    draw: pure, since its results are kept (`cache` of them). settle: seconds to wait for the newest
    value, where a kernel's loop runs. greyed: {name: why} of controls that do not always matter:
    `why(values)` says why one has no effect now, or "". quick: as draw, and faster; it comes first
    where drawing takes long. controls: by the names of draw's arguments.
    """

    def called(draw):
        def as_png(*values):
            figure, fact = draw(**dict(zip(controls, values, strict=True)))
            return png(figure), fact

        return as_png

    drawn, faster = lru_cache(maxsize=cache)(called(draw)), quick and called(quick)
    return Explorer(drawn, controls, settle, greyed, faster)
