"""Stills of what moves: a PNG beside a widget or a plotly figure in its mime bundle, for
whoever opens a notebook, or a page made of it, where no kernel and no script runs.
"""

import base64
import io
import textwrap
from collections.abc import Callable

import plotly.graph_objects as go
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from .pictures import described, in_colours, small_png

LINE, MARGIN = 22, 8  # pixels: of a line of text, and around it
GREY = (90, 90, 90)


def captioned(picture: bytes, text: str) -> bytes:
    """A picture (PNG) with a text above it, as PNG in 256 colours."""
    from matplotlib.font_manager import findfont

    shown = Image.open(io.BytesIO(picture)).convert("RGB")
    font = ImageFont.truetype(findfont("DejaVu Sans"), LINE - 8)
    width = max(shown.width, 420)
    letters = max(20, int((width - 2 * MARGIN) / font.getlength("n")))
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, letters)]
    top = LINE * len(lines) + 2 * MARGIN
    page, buffer = Image.new("RGB", (width, top + shown.height), "white"), io.BytesIO()
    draw = ImageDraw.Draw(page)
    for k, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + LINE * k), line, GREY, font)
    page.paste(shown, (0, top))
    in_colours(page).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def above(upper: bytes, lower: bytes) -> bytes:
    """Two pictures (PNG), one above the other on white, as PNG."""
    parts = [Image.open(io.BytesIO(part)).convert("RGB") for part in (upper, lower)]
    size = max(part.width for part in parts), sum(part.height for part in parts)
    page, buffer = Image.new("RGB", size, "white"), io.BytesIO()
    for part, top in zip(parts, (0, parts[0].height), strict=True):
        page.paste(part, (0, top))
    page.save(buffer, "png")
    return buffer.getvalue()


def with_still(bundle: dict | None, png: bytes | None, alt: str) -> tuple[dict, dict]:
    """A mime bundle with a PNG in it, if there is one to show and anything to show it beside, and
    its metadata, which say in words what the PNG shows.
    """
    if not bundle or not png:
        return bundle or {}, {}
    picture = base64.b64encode(png).decode("ascii")
    return {**bundle, "image/png": picture}, {"image/png": {"alt": alt}}


class StillFigure(go.Figure):
    """A plotly figure that knows itself as a matplotlib one, made when it is displayed.

    still: makes that of the same data.
    """

    def __init__(self, *parts, still: Callable[[], Figure] | None = None, **settings):
        super().__init__(*parts, **settings)
        self._still = still

    def _repr_mimebundle_(self, *args, **settings):
        bundle = super()._repr_mimebundle_(*args, **settings)
        still = self._still() if bundle and self._still else None
        return (
            with_still(bundle, small_png(still), described(still)) if still else (bundle or {}, {})
        )

    def _ipython_display_(self):
        from IPython.display import display

        bundle, metadata = self._repr_mimebundle_()
        if bundle:
            display(bundle, raw=True, metadata=metadata)
        else:  # it goes to a browser, or nowhere
            super()._ipython_display_()
