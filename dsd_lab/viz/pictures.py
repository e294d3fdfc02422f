"""Figures of pictures: one montage on one pair of axes, quick to draw and crisp."""

import io
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator
from PIL import Image
from torch import Tensor

from ..metrics import RADIUS, distances
from ..sampling import Trajectory
from . import style
from .style import COLOURS, DPI, FAINT, SIZES, text_width, whole_dots, wrap

# inches a picture, about: a whole number of dots for each of its pixels, so that it is crisp and
# small to store
TILE = 0.8
GAP = 0.06  # between pictures, as a fraction of their side
FRAMED = 0.14  # the same where they have frames
MARGIN = 0.1  # inches around a figure's contents
NARROWEST = 2.6  # inches, for a figure with a line of text across it


def montage(rows: Sequence[Tensor | Sequence[Tensor]], share: float = GAP) -> Tensor:
    """Rows of pictures (3, H, W) in [0, 1] as one picture (H', W', 3), white between them.

    share: of a picture's side that is left between two.
    """
    height, width = rows[0][0].shape[1:]
    gap = max(1, round(share * height))
    columns = max(len(row) for row in rows)
    sheet = torch.ones(3, len(rows) * (height + gap) - gap, columns * (width + gap) - gap)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            sheet[:, top : top + height, left : left + width] = picture.detach().cpu()
    return sheet.permute(1, 2, 0)


def sheet(
    rows: Mapping[str, Tensor | Sequence[Tensor]],
    columns: Sequence[str] = (),
    title: str = "",
    credit: str = "",
    tile: float = TILE,
    frames: Mapping[str, Sequence[str]] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """Labelled rows of pictures: rows {label: pictures (3, H, W)}, a heading for each column, a
    line of credit below.

    frames: a colour for each picture of a row, which is drawn around it. notes: what stands in the
    margin to the right of a row. Both by the rows' labels.
    Texts too long for their place go on over several lines. Raises ValueError if there is nothing
    to show.
    """
    if not rows or not all(len(row) for row in rows.values()):
        raise ValueError("nothing to show: give at least one row with at least one picture")
    share = FRAMED if frames else GAP
    picture = montage(list(rows.values()), share).numpy()
    side = next(iter(rows.values()))[0].shape[-1]
    inch = max(1, round(tile * DPI / side)) / DPI  # of one pixel
    tile, pitch = side * inch, side + max(1, round(share * side))
    picture_height, picture_width = (inch * n for n in picture.shape[:2])
    widest = max(text_width(label, SIZES["row"]) for label in rows)
    left = whole_dots(MARGIN + 0.08 + widest)
    notes = [(notes or {}).get(label, "") for label in rows]
    noted = max(text_width(note, SIZES["head"]) for note in notes)
    width = left + picture_width + MARGIN + whole_dots(noted + 0.12 if noted else 0)
    width = whole_dots(max(width, NARROWEST) if title or credit else width)
    # the title stands above the pictures if it fits there
    beside = text_width(title, SIZES["title"], "bold") <= width - left - MARGIN
    titles = wrap(title, SIZES["title"], width - 2 * MARGIN, "bold") if title else []
    credits = wrap(credit, SIZES["credit"], width - 2 * MARGIN) if credit else []
    heads, head_size = _heads(columns, tile)
    top = whole_dots(MARGIN + 0.19 * len(titles) + _height(heads))
    bottom = whole_dots(MARGIN + (0.06 + 0.115 * len(credits) if credits else 0))
    height = top + picture_height + bottom
    figure = Figure(figsize=(width, height), dpi=DPI)
    axes = figure.add_axes(
        (left / width, bottom / height, picture_width / width, picture_height / height)
    )
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    middle = [side / 2 - 0.5 + pitch * k for k in range(max(len(rows), len(heads)))]
    axes.set_yticks(middle[: len(rows)], list(rows), fontsize=SIZES["row"])
    axes.set_xticks(middle[: len(heads)], heads, fontsize=head_size)
    axes.tick_params(length=0, labelbottom=False, labeltop=True, pad=4)
    axes.spines[:].set_visible(False)
    for note, y in zip(notes, middle, strict=False):
        beyond = {"va": "center", "fontsize": SIZES["head"], "color": style.SOFT}
        axes.text(picture.shape[1] + 0.08 / inch, y, note, **beyond)
    _frame(axes, [(frames or {}).get(label, ()) for label in rows], side, pitch)
    style.title(figure, title, left if beside else MARGIN, 0.07)
    style.credit(figure, credit, MARGIN, 0.08)
    return figure


def _frame(axes, rows: Sequence[Sequence[str]], side: int, pitch: int) -> None:
    """Frames of these colours around the pictures of a montage, in the room between them."""
    room = (pitch - side) / 4
    for i, row in enumerate(rows):
        for j, colour in enumerate(row):
            corner = j * pitch - 0.5 - room, i * pitch - 0.5 - room
            look = {"fill": False, "ec": colour, "lw": 1.8, "clip_on": False}
            axes.add_patch(Rectangle(corner, side + 2 * room, side + 2 * room, **look))


def _heads(columns: Sequence[str], tile: float) -> tuple[list[str], float]:
    """Headings broken into lines no wider than a picture, and the size at which they fit."""
    heads = ["\n".join(wrap(str(head), SIZES["head"], tile)) for head in columns]
    widest = max([tile, *(text_width(head, SIZES["head"]) for head in heads)])
    return heads, SIZES["head"] * tile / widest


def _height(heads: Sequence[str]) -> float:
    """Inches that headings take."""
    return 0.145 * max(head.count("\n") + 1 for head in heads) + 0.08 if heads else 0.0


def grid(
    rows: Mapping[str, Tensor],
    seeds: Sequence[int],
    title: str = "",
    credit: str = "",
    tile: float = TILE,
    drawings: Tensor | None = None,
    radius: float = RADIUS,
) -> Figure:
    """Method by seed (the paper's figure 4): rows {method: images (B, 3, H, W)}, columns seeds.

    drawings: the prompt's pictures (N, 3, H, W). With them each result has a frame whose colour is
    that of the drawing it reached, the nearest within `radius` (the same colour, the same drawing;
    grey is none), and the margin says how many of them a row reached.
    """
    columns = [f"seed {seed}" for seed in seeds]
    if drawings is None:
        return sheet(rows, columns, title, credit, tile)
    found = {name: reached(images, drawings, radius) for name, images in rows.items()}
    order = dict.fromkeys(mode for modes in found.values() for mode in modes if mode >= 0)
    colours = {mode: COLOURS[k % len(COLOURS)] for k, mode in enumerate(order)} | {-1: FAINT}
    frames = {name: [colours[mode] for mode in modes] for name, modes in found.items()}
    notes = {name: f"{len({*modes} - {-1})} of {len(drawings)}" for name, modes in found.items()}
    return sheet(rows, columns, title, credit, tile, frames, notes)


def reached(images: Tensor, drawings: Tensor, radius: float = RADIUS) -> list[int]:
    """Which drawing (N, 3, H, W) each image (B, 3, H, W) is nearest to, -1 if that is further than
    `radius` (RMSE in [0, 1]).
    """
    nearest = distances(images, drawings).min(1)
    return nearest.indices.masked_fill(nearest.values > radius, -1).tolist()


def strips(
    path: Trajectory, item: int = 0, count: int = 9, title: str = "", credit: str = ""
) -> Figure:
    """x_t and the x0-prediction side by side along one item's path, noisiest first (the paper's
    figure 2).

    x_t is shown with its contrast divided by its own spread, since pure noise has no picture scale
    of its own.
    """
    # closer together towards t = 0, where the picture comes out of the noise
    t = path.t.cpu()
    wanted = t[0] * torch.linspace(1, 0, count) ** 1.7
    index = (t[:, None] - wanted).abs().argmin(0).unique()
    decode = path.prior.decode
    rows = {
        "$x_t$": [x_t_picture(path, k, item) for k in index],
        r"$\hat x_0(x_t, t)$": list(decode(path.x0[index, item])),
    }
    return sheet(rows, [f"t = {t[k]}" for k in index], title, credit)


def x_t_picture(path: Trajectory, k: int | Tensor, item: int) -> Tensor:
    """x_t of level k as a picture (3, H, W): shrunk as it grows noisier, to the spread that the
    clean result has.
    """
    x_t, final = path.x_t[k, item], path.final[item]
    return path.prior.decode((x_t * (final.std() / x_t.std()).clamp(max=1))[None])[0]


def png(figure: Figure) -> bytes:
    """A figure as PNG, with no date in it, so that the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def small_png(figure: Figure) -> bytes:
    """A figure as PNG in 256 colours, for files that are kept: a fifth of the size."""
    buffer = io.BytesIO()
    in_colours(Image.open(io.BytesIO(png(figure)))).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def in_colours(picture: Image.Image, count: int = 256) -> Image.Image:
    """A picture of any mode with a palette (mode P) of at most `count` colours, 256 or fewer. They
    are spread over all that occur, so that a small thing in a colour of its own keeps it.
    """
    spread = {"method": Image.Quantize.MAXCOVERAGE, "kmeans": 1}
    return picture.convert("RGB").quantize(count, dither=Image.Dither.NONE, **spread)


def show(figure: Figure, alt: str = ""):
    """A figure as a notebook cell's picture: PNG in 256 colours, so that notebooks stay small, and
    with a constant text.

    alt: what it shows, for those who do not see it; made of the figure's own words unless given.
    """
    from IPython import display

    return display.Image(small_png(figure), alt=alt or described(figure))


def show_moving(gif: bytes, alt: str):
    """A GIF as a notebook cell's picture. alt: what it shows, for those who do not see it."""
    from IPython import display

    return display.Image(gif, format="gif", alt=alt)


def described(figure: Figure) -> str:
    """What a figure shows, in the words that stand in it: title, panels, axes, rows and columns."""
    heads = [text.get_text() for text in figure.texts if text.get_fontsize() != SIZES["credit"]]
    for axes in figure.axes:
        legend = axes.get_legend()
        named = [text.get_text() for text in legend.get_texts()] if legend else []
        heads += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), ", ".join(named)]
        for name, axis in (("rows", axes.yaxis), ("columns", axes.xaxis)):
            if isinstance(axis.get_major_locator(), FixedLocator):  # labels, not a scale
                words = [label.get_text() for label in axis.get_ticklabels() if label.get_text()]
                heads += [f"{name}: {', '.join(words)}"] if words else []
    words = " ".join(". ".join(dict.fromkeys(head for head in heads if head)).split())
    return words.replace("$", "").replace("\\hat ", "") or "a figure"
