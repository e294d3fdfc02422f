"""Controls that recompute: seed, t, CFG and method, over a pure function that draws a figure and
states a fact.

No Output widget and no display updates: a control's change writes a picture and a line of text, in
a browser and under a test alike. The same settings are drawn once.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape

import ipywidgets as widgets
from matplotlib.figure import Figure

from ..checks import choice
from .pictures import png
from .stills import captioned, with_still

WIDE = {"layout": widgets.Layout(width="420px"), "style": {"description_width": "90px"}}


def seed_control(value: int = 0, last: int = 31) -> widgets.IntSlider:
    """A slider over seeds 0..last."""
    return widgets.IntSlider(value, 0, last, description="seed", continuous_update=False, **WIDE)


def t_control(levels: Sequence[int], value: int | None = None) -> widgets.SelectionSlider:
    """A slider over the timesteps of a path, noisiest on the left."""
    levels = [int(t) for t in levels]
    value = levels[len(levels) // 2] if value is None else min(levels, key=lambda t: abs(t - value))
    return widgets.SelectionSlider(
        options=levels, value=value, description="t", continuous_update=False, **WIDE
    )


def cfg_control(value: float = 7.5, largest: float = 30.0) -> widgets.FloatSlider:
    """A slider over guidance, from 1 (none) up."""
    return widgets.FloatSlider(
        value,
        min=1.0,
        max=largest,
        step=0.5,
        description="CFG",
        continuous_update=False,
        readout_format=".1f",
        **WIDE,
    )


def fraction_control(name: str, value: float) -> widgets.FloatSlider:
    """A slider over fractions of the schedule."""
    return widgets.FloatSlider(
        value,
        min=0.04,
        max=1.0,
        step=0.02,
        description=name,
        continuous_update=False,
        readout_format=".2f",
        **WIDE,
    )


def choice_control(name: str, options: Sequence[str], value: str | None = None) -> widgets.Dropdown:
    """A menu, of methods or prompts."""
    return widgets.Dropdown(
        options=list(options), value=value or options[0], description=name, **WIDE
    )


class Explorer(widgets.VBox):
    """Controls above a picture and a fact, all drawn by one function; see `explore`."""

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        controls: dict[str, widgets.Widget],
        cache: int,
        settle: float = 0.0,
    ):
        self.controls, self._fact, self._line = controls, "", widgets.HTML()
        self._settle, self._waiting = settle, None

        @lru_cache(maxsize=cache)
        def drawn(*values):
            figure, fact = draw(**dict(zip(controls, values, strict=True)))
            return png(figure), fact

        self._draw = drawn
        self.picture = widgets.Image(format="png", layout=widgets.Layout(width="max-content"))
        super().__init__([*controls.values(), self._line, self.picture])
        for control in controls.values():
            control.observe(lambda change: self._changed(), names="value")
        self.refresh()

    def _changed(self) -> None:
        """Draw now, or, where a kernel's loop runs, once the values have settled: a drag sends more
        of them than can be drawn.
        """
        try:
            loop = asyncio.get_running_loop() if self._settle else None
        except RuntimeError:
            loop = None
        if loop is None:
            self.refresh()
        elif self._waiting is None:
            self._waiting = loop.call_later(self._settle, self.refresh)

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
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        try:
            values = [control.value for control in self.controls.values()]
            self.picture.value, self._fact = self._draw(*values)
            self._line.value = escape(self._fact)
        except Exception as error:
            self._fact = f"{type(error).__name__}: {error}"
            self._line.value = f'<span style="color:#b00">{escape(self._fact)}</span>'

    def set(self, **values) -> str:
        """Move controls as a hand would, and return the fact that then stands below them."""
        for name, value in values.items():
            self.controls[choice("control", name, self.controls)].value = value
        return self.fact

    def _repr_mimebundle_(self, **settings):
        """The widget, and a still of it for where no kernel runs."""
        fact = self.fact
        chosen = ", ".join(f"{c.description} {c.value}" for c in self.controls.values())
        png = captioned(self.picture.value, f"{chosen}\n{fact}") if self.picture.value else None
        return with_still(super()._repr_mimebundle_(**settings), png, f"{chosen}. {fact}")

    def __repr__(self) -> str:  # constant, so that a notebook's stored output stays the same
        return f"Explorer({', '.join(self.controls)})"


def explore(
    draw: Callable[..., tuple[Figure, str]],
    cache: int = 64,
    settle: float = 0.0,
    **controls: widgets.Widget,
) -> Explorer:
    """A live figure: `draw(**values)` returns a figure and a fact, and is called with the controls'
    values.

    draw: pure, since its results are kept (`cache` of them). settle: seconds to wait for the newest
    value, for controls that report each tick of a drag. controls: by the names of draw's
    arguments.
    """
    return Explorer(draw, controls, cache, settle)
