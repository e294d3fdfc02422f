import asyncio
import io
import struct
import time
from functools import partial

import numpy as np
import pytest
import torch
from helpers import run_asleep
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from dsd_lab import GaussianMixture, ImageSet, Trajectory, ddim
from dsd_lab.viz.controls import cfg_control, choice_control, explore, seed_control, t_control
from dsd_lab.viz.interpolation import LONGER, Moment, animated, interpolation
from dsd_lab.viz.landscape import Landscape, curves, landscapes
from dsd_lab.viz.pictures import (
    MARGIN,
    described,
    grid,
    in_colours,
    montage,
    png,
    reached,
    sheet,
    show,
    show_moving,
    strips,
    text_width,
    wrap,
    x_t_picture,
)
from dsd_lab.viz.points import COLOURS, density, field, square, trajectories
from dsd_lab.viz.style import FAINT

CREDIT = (
    "Icons: Noto Emoji (Google, Apache-2.0), Twemoji (Twitter, CC BY 4.0), "
    "Fluent Emoji (Microsoft, MIT), EmojiOne (CC BY 4.0), FxEmojis (Mozilla, CC BY 4.0); "
    "rasterised at 64x64 on white."
)


def texts(figure):
    """Every text of a figure with the box it is drawn in, in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), *figure.texts]
    return [
        (text.get_text(), text.get_window_extent(renderer)) for text in labels if text.get_text()
    ]


def size(data):
    return struct.unpack(">II", data[16:24])


# ---- pictures ------------------------------------------------------------------------------------


def test_montage_is_exact_to_the_pixel():
    g = torch.Generator().manual_seed(0)
    a, b, c = torch.rand(3, 3, 8, 8, generator=g)
    picture = montage([[a, b], [c]])
    assert picture.shape == (17, 17, 3)  # a gap of one pixel
    want = torch.ones(3, 17, 17)
    want[:, :8, :8], want[:, :8, 9:], want[:, 9:, :8] = a, b, c
    assert torch.equal(picture, want.permute(1, 2, 0))


def test_montage_gap_is_six_percent():
    assert montage([[torch.zeros(3, 64, 64)] * 3]).shape == (64, 3 * 64 + 2 * 4, 3)
    assert montage([[torch.zeros(3, 32, 32)], [torch.zeros(3, 32, 32)]]).shape == (
        2 * 32 + 2,
        32,
        3,
    )


def test_a_grid_has_the_labels_and_the_size_of_its_contents():
    figure = grid(
        {"DDIM": torch.rand(3, 3, 8, 8), "SDS": torch.rand(3, 3, 8, 8)},
        [4, 5, 9],
        "a tree",
        tile=0.8,
    )
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["seed 4", "seed 5", "seed 9"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["DDIM", "SDS"]
    assert axes.get_xticks().tolist() == [
        3.5,
        12.5,
        21.5,
    ]  # the middle of pictures of 8 pixels, 9 apart
    assert axes.get_yticks().tolist() == [3.5, 12.5]
    assert "a tree" in [t.get_text() for t in figure.texts]
    box = axes.get_position().bounds * torch.tensor([*figure.get_size_inches()] * 2).numpy()
    assert box[2:] == pytest.approx(
        [26 / 8 * 0.8, 17 / 8 * 0.8]
    )  # 0.8 inches a picture, undistorted
    width, height = size(png(figure))
    assert (width, height) == pytest.approx(
        [110 * inch for inch in figure.get_size_inches()], abs=1
    )


def test_a_grid_shows_its_pictures():
    red, blue = torch.zeros(2, 3, 8, 8)
    red[0] = blue[2] = 1
    figure = grid({"a": torch.stack([red, blue])}, [0, 1])
    picture = Image.open(io.BytesIO(png(figure))).convert("RGB")
    box = figure.axes[0].get_window_extent()
    middle = picture.height - (box.y0 + box.y1) / 2
    assert picture.getpixel((round(box.x0 + 0.25 * box.width), round(middle))) == (255, 0, 0)
    assert picture.getpixel((round(box.x0 + 0.75 * box.width), round(middle))) == (0, 0, 255)
    assert picture.getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("columns", "label", "title", "heading"),
    [
        (1, "DDIM", "a tree", "seed 0"),
        (1, "DSD", "a very long prompt indeed, which goes on for long", "seed 123456789"),
        (4, "DSD (cfg=30.0,\nform='reference')", "a tree", "seed 123456789"),
        (16, "a", "a tree", "the x0-prediction at t = 999"),
        (3, r"$\hat x_0(x_t, t)$", "", "averyveryverylongword"),
        (2, "x", "two\nlines", ""),
    ],
)
def test_no_text_is_cut_and_none_collides(columns, label, title, heading):
    figure = sheet(
        {label: torch.rand(columns, 3, 8, 8), "SDS": torch.rand(columns, 3, 8, 8)},
        [heading] * columns,
        title,
        CREDIT,
    )
    width, height = figure.get_size_inches() * figure.dpi
    boxes = texts(figure)
    assert " ".join(boxes[-1][0].split()) == CREDIT
    assert width <= 110 * (
        columns * 0.85 + 0.1 + max(2.5, text_width(label.split("\n")[-1], 10) + 0.5)
    )
    for name, box in boxes:
        assert box.x0 >= 0, name
        assert box.x1 <= width, name
        assert box.y0 >= 0, name
        assert box.y1 <= height, name
    for i, (name, box) in enumerate(boxes):
        for other, there in boxes[i + 1 :]:
            apart = min(box.x1, there.x1) <= max(box.x0, there.x0) or min(box.y1, there.y1) <= max(
                box.y0, there.y0
            )
            assert apart, (name, other)
    pictures = figure.axes[0].get_window_extent()
    for name, box in boxes:
        assert not (
            box.x1 > pictures.x0
            and box.x0 < pictures.x1
            and box.y1 > pictures.y0
            and box.y0 < pictures.y1
        ), name


def test_the_credit_takes_as_many_lines_as_the_figure_is_narrow():
    def lines(columns):
        return (
            sheet({"a": torch.rand(columns, 3, 8, 8)}, credit=CREDIT)
            .texts[-1]
            .get_text()
            .count("\n")
            + 1
        )

    assert lines(12) == 1
    assert lines(6) == 2
    assert lines(1) > 2


def test_frames_say_which_drawing_was_reached_and_the_margin_how_many():
    drawings = torch.stack([torch.full((3, 8, 8), v) for v in (0.0, 0.5, 1.0)])
    near = torch.stack([drawings[1], drawings[1] - 0.2, drawings[0]])
    rows = {"A": drawings[[1, 1, 2]], "B": near}
    assert reached(rows["B"], drawings) == [1, -1, 0]
    assert reached(rows["B"], drawings, radius=0.25) == [1, 1, 0]
    axes = grid(rows, [0, 1, 2], drawings=drawings).axes[0]
    colours = [to_hex(frame.get_edgecolor()) for frame in axes.patches]
    assert colours == [COLOURS[0], COLOURS[0], COLOURS[1], COLOURS[0], FAINT, COLOURS[2]]
    assert [note.get_text() for note in axes.texts] == ["2 of 3", "2 of 3"]
    assert not grid(rows, [0, 1, 2]).axes[0].patches


def test_a_picture_is_described_by_its_own_words():
    figure = grid({"$x_t$": torch.rand(2, 3, 8, 8)}, [0, 1], "a cat", CREDIT)
    assert described(figure) == "a cat. rows: x_t. columns: seed 0, seed 1"
    assert show(figure).alt == described(figure)
    assert show(figure, "two cats")._repr_mimebundle_()[1] == {"image/png": {"alt": "two cats"}}


def test_wrap_breaks_at_spaces_and_nowhere_else():
    assert wrap("one two  three", 10, 99) == ["one two  three"]
    assert wrap("one two three", 10, text_width("one two", 10) + 0.001) == ["one two", "three"]
    assert wrap("one two three", 10, 0.01) == ["one", "two", "three"]
    assert wrap("one\ntwo", 10, 99) == ["one", "two"]


def test_text_width_is_that_of_the_drawn_text():
    figure = Figure(dpi=400)
    text = figure.text(0.1, 0.5, "DSD reference, cfg=7.5", fontsize=10)
    drawn = text.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width / 400
    assert text_width("DSD reference, cfg=7.5", 10) == pytest.approx(drawn, rel=0.03)
    assert text_width(" ", 10) == 0


@pytest.mark.parametrize(
    "rows", [{}, {"a": []}, {"a": torch.zeros(2, 3, 8, 8), "b": torch.zeros(0, 3, 8, 8)}]
)
def test_nothing_to_show_is_an_error(rows):
    with pytest.raises(ValueError, match="nothing to show: give at least one row"):
        sheet(rows)


def test_png_is_the_same_twice_and_holds_no_date():
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    figure = grid({"a": pictures}, [0, 1], "t", CREDIT)
    first = png(figure)
    assert png(figure) == first
    assert png(grid({"a": pictures}, [0, 1], "t", CREDIT)) == first
    assert first.startswith(b"\x89PNG")
    assert Image.open(io.BytesIO(first)).info.keys() <= {"dpi"}


@pytest.fixture
def path(small_world):
    prior = ImageSet(small_world)
    return ddim(prior, prior.noise([3, 4]), prior.condition("warm"), 50)


def test_a_small_thing_keeps_its_colour():
    picture, ramp = np.zeros((128, 128, 3), np.uint8), np.arange(128)
    picture[..., 0], picture[..., 2] = 2 * ramp[:, None], 2 * ramp
    picture[..., 1] = (ramp[:, None] + ramp) // 2
    picture[60:64, 60:64] = (220, 180, 60)  # as nothing else; by the median it would be red
    kept = np.asarray(in_colours(Image.fromarray(picture)).convert("RGB"), int)
    assert len(np.unique(kept.reshape(-1, 3), axis=0)) <= 256
    assert np.abs(kept - picture).max() < 24


def test_x_t_is_shown_with_the_spread_of_the_clean_result(path):
    x, final = path.x_t[0, 1], path.final[1]
    factor = final.std() / x.std()
    assert factor < 1
    torch.testing.assert_close(x_t_picture(path, 0, 1), path.prior.decode(x[None] * factor)[0])


def test_x_t_is_never_stretched(path):
    faint = Trajectory(path.t, path.x_t * 1e-3, path.eps, path.x0, path.prior)
    assert torch.equal(x_t_picture(faint, 0, 0), path.prior.decode(faint.x_t[0, :1])[0])


def test_strips_go_from_noise_to_picture(path):
    figure = strips(path, 1, count=5, title="a path")
    shown = figure.axes[0].images[0].get_array()
    heads = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    # 999 (1, 3/4, 1/2, 1/4, 0)^1.7 = 999, 612.6, 307.5, 94.6, 0, and the kept levels are int(999 -
    # 19.98 k)
    assert heads == ["t = 999", "t = 619", "t = 299", "t = 99", "t = 0"]
    index = [path.t.tolist().index(int(head[4:])) for head in heads]
    want = montage(
        [
            [x_t_picture(path, k, 1) for k in index],
            [path.prior.decode(path.x0[k, 1:])[0] for k in index],
        ]
    )
    torch.testing.assert_close(torch.as_tensor(shown.data), want)


def test_a_narrow_figure_keeps_its_margins():
    figure = sheet({"a": torch.zeros(1, 3, 8, 8)}, ["t"])
    box = figure.axes[0].get_position()
    assert (1 - box.x1) * figure.get_size_inches()[0] == pytest.approx(MARGIN)


# ---- points --------------------------------------------------------------------------------------


@pytest.fixture
def mixture():
    return GaussianMixture({"left": [[-1.0, 0.0]], "right": [[1.0, 0.5]]}, width=0.2)


def test_density_is_that_of_the_mixture(mixture):
    axis, p = density(mixture, 0, count=81)
    v = 0.04 * mixture.schedule.alphas_cumprod[0] + 1 - mixture.schedule.alphas_cumprod[0]
    a = mixture.schedule.alphas_cumprod[0].sqrt()
    x, y = float(axis[50]), float(axis[44])
    both = [
        torch.exp(-((x - a * cx) ** 2 + (y - a * cy) ** 2) / (2 * v)) / (2 * torch.pi * v)
        for cx, cy in ((-1, 0), (1, 0.5))
    ]
    assert float(p[44, 50]) == pytest.approx(float(sum(both) / 2), rel=1e-6)
    assert float(p.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-3)
    assert float(
        density(mixture, 0, mixture.condition("right"), count=81)[1][44, 50]
    ) == pytest.approx(float(both[1]), rel=1e-6)


def test_trajectories_draw_each_path_and_its_end(mixture):
    g = torch.Generator().manual_seed(0)
    paths = {name: torch.randn(4, 3, 2, generator=g) for name in ("DDIM", "DSD")}
    figure = trajectories(mixture, paths, title="paths")
    assert len(figure.data) == 1 + 2 * 3 * 2
    assert figure.data[0].type == "contour"
    for k, (name, path) in enumerate(paths.items()):
        for b in range(3):
            line, end = figure.data[1 + 6 * k + 2 * b : 3 + 6 * k + 2 * b]
            assert (line.name, line.mode, end.mode) == (name, "lines", "markers")
            assert list(line.x) == path[:, b, 0].tolist()
            assert list(line.y) == path[:, b, 1].tolist()
            assert ([*end.x], [*end.y]) == ([path[-1, b, 0].item()], [path[-1, b, 1].item()])
            assert line.line.color == end.marker.color == COLOURS[b]
            assert line.line.dash == ("solid", "dot")[k]
            assert line.showlegend == (b == 0)
    assert figure.layout.title.text == "paths"


def test_trajectories_draw_any_number_of_names(mixture):
    figure = trajectories(mixture, {str(k): torch.zeros(2, 1, 2) for k in range(6)})
    assert [line.name for line in figure.data[1::2]] == list("012345")


def test_trajectories_refuse_what_is_not_in_the_plane(small_world):
    with pytest.raises(ValueError, match=r"2-D points; small has items of shape \(3, 8, 8\)"):
        trajectories(ImageSet(small_world), {"a": torch.zeros(2, 1, 2)})
    with pytest.raises(ValueError, match=r"gaussian-mixture has items of shape \(3,\)"):
        trajectories(GaussianMixture({"a": [[0.0, 0.0, 0.0]]}), {"a": torch.zeros(2, 1, 3)})


def test_a_field_has_a_panel_a_level_and_only_levels_of_the_path(mixture):
    path = ddim(mixture, mixture.noise([0, 1]), mixture.condition("right"), 5, cfg=1.0)
    first, last = int(path.t[0]), int(path.t[-1])
    figure = field(mixture, path, [first, last], mixture.condition("right"), 1.0)
    assert [axes.get_title()[:7] for axes in figure.axes] == [f"t = {first}", f"t = {last}, "[:7]]
    ways = [line.get_xydata() for line in figure.axes[1].lines if len(line.get_xydata()) == 6]
    assert torch.equal(torch.tensor(np.array(ways)), path.x_t.transpose(0, 1).double())
    with pytest.raises(ValueError, match="levels must be timesteps of the path, .*got \\[1\\]"):
        field(mixture, path, [1], mixture.condition("right"), 1.0)


def test_a_landscape_shows_its_places_of_rest_and_curves_their_names():
    axis = torch.linspace(-1, 1, 7, dtype=torch.float64)
    x = square(axis).reshape(7, 7, 2)
    rests, marks = torch.zeros(1, 2), torch.tensor([[0.5, 0.5], [0.5, -0.5]])
    land = Landscape(axis, -x.square().sum(-1), -2 * x, rests, marks)
    crosses, stars = landscapes({"bowl": land, "again": land}).axes[1].lines[:2]
    assert crosses.get_xydata().tolist() == marks.tolist()
    assert stars.get_xydata().tolist() == rests.tolist()
    figure = curves([0, 1, 2], {"a": [0, 1, 0], "b": [1, 1, 1]}, "x", "y", marks=[1])
    assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())
    assert described(figure) == "x. y. a, b"
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines[1:]] == [[0, 1, 0], [1] * 3]


def test_the_interpolated_point_lies_between_render_and_noise(mixture):
    cond = mixture.condition("right")
    path = ddim(mixture, mixture.noise([0], torch.float64), cond, 5, cfg=1.0)
    x, n = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    moment = Moment(500, 600, x, n, path.x_t[1, 0], path.x0[1, 0], x - 0.1)
    figure = interpolation(mixture, cond, path, moment)
    shown = [line.get_xydata() for line in figure.axes[0].lines]
    a, s = mixture.schedule.alpha[500], mixture.schedule.sigma[500]
    assert any(np.allclose(points, [[a, s]]) for points in shown)  # alpha x + sigma n
    (arrow,) = (text for text in figure.axes[0].texts if text.arrow_patch)
    assert np.allclose(arrow.xy, x - LONGER * 0.1) and np.allclose(arrow.xyann, x)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(named) == 6 and named[-1] == f"{LONGER} times the step"
    later = interpolation(mixture, cond, path, moment._replace(t=400))
    moving = Image.open(io.BytesIO(animated([figure, later])))
    assert moving.format == "GIF" and moving.info["duration"] == 250
    assert show_moving(b"GIF89a", "two")._repr_mimebundle_()[1] == {"image/gif": {"alt": "two"}}


# ---- controls ------------------------------------------------------------------------------------


class Draw:
    """A figure whose grey is the seed's, which counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, seed, cfg):
        self.calls.append((seed, cfg))
        if seed == 13:
            raise ValueError("no <13> here")
        return sheet({"a": [torch.full((3, 8, 8), seed / 31)]}), f"seed {seed} & CFG {cfg}"


@pytest.fixture
def live():
    draw = Draw()
    return explore(draw, seed=seed_control(2), cfg=cfg_control()), draw


def test_an_explorer_draws_at_once(live):
    explorer, draw = live
    assert draw.calls == [(2, 7.5)]
    assert explorer.fact == "seed 2 & CFG 7.5"
    assert explorer.picture.value == png(sheet({"a": [torch.full((3, 8, 8), 2 / 31)]}))
    assert explorer.children[:2] == tuple(explorer.controls.values())
    assert explorer.children[2].value == "seed 2 &amp; CFG 7.5"


def test_moving_a_control_draws_for_its_new_value(live):
    explorer, draw = live
    before = explorer.picture.value
    explorer.controls["seed"].value = 30
    assert draw.calls == [(2, 7.5), (30, 7.5)]
    assert explorer.picture.value == png(sheet({"a": [torch.full((3, 8, 8), 30 / 31)]})) != before
    assert explorer.fact == "seed 30 & CFG 7.5"
    assert explorer.set(seed=1, cfg=3.0) == "seed 1 & CFG 3.0"


def test_the_same_settings_are_drawn_once(live):
    explorer, draw = live
    first = explorer.picture.value
    explorer.set(seed=3)
    assert explorer.set(seed=2) == "seed 2 & CFG 7.5"
    assert explorer.picture.value == first
    assert draw.calls == [(2, 7.5), (3, 7.5)]


def test_an_error_stands_in_the_facts_place_and_goes_away(live):
    explorer, _ = live
    assert explorer.set(seed=13) == "ValueError: no <13> here"
    assert "no &lt;13&gt; here" in explorer.children[2].value
    assert "color" in explorer.children[2].value
    assert explorer.set(seed=2) == "seed 2 & CFG 7.5"
    assert "color" not in explorer.children[2].value


def test_an_explorer_knows_its_controls(live):
    explorer, draw = live
    with pytest.raises(ValueError, match='unknown control "sed"; did you mean "seed"'):
        explorer.set(sed=1)
    assert repr(explorer) == "Explorer(seed, cfg)"
    explorer.set(seed=5)
    assert repr(explorer) == "Explorer(seed, cfg)"
    assert len(draw.calls) == 2


def test_a_copy_of_an_explorer_moves_alone(live):
    explorer, draw = live
    other = explorer.copy()
    assert other.values == (2, 7.5) and len(draw.calls) == 1
    assert other.set(seed=4) == "seed 4 & CFG 7.5"
    assert explorer.values == (2, 7.5) and explorer.fact == "seed 2 & CFG 7.5"
    levels = explore(
        lambda t: (sheet({"a": [torch.zeros(3, 4, 4)]}), f"{t}"), t=t_control([9, 5, 1])
    )
    levels.set(t=1)
    assert levels.copy().fact == "1" and levels.copy().set(t=9) == "9" and levels.fact == "1"


def test_a_control_without_effect_is_grey_and_says_why():
    def draw(method, t):
        return sheet({"a": [torch.zeros(3, 4, 4)]}), f"{method} at {t}"

    why = {"t": lambda values: "it draws its own" if values["method"] == "SDS" else ""}
    controls = {"method": choice_control("method", ["SDS", "DSD"]), "t": t_control([9, 5, 1])}
    explorer = explore(draw, greyed=why, **controls)
    meant = t_control([9]).tooltip
    assert controls["t"].disabled and controls["t"].tooltip == "it draws its own"
    assert "t is grey: it draws its own" in explorer.children[2].value
    explorer.set(method="DSD")
    assert not controls["t"].disabled and controls["t"].tooltip == meant
    assert explorer.children[2].value == "DSD at 5"
    assert explorer.copy().set(method="SDS") == "SDS at 5" and not controls["t"].disabled


def test_a_slow_picture_is_quick_first_and_sharp_when_the_slider_rests():
    drawn = []

    def draw(seed, kind="sharp"):
        drawn.append((kind, seed))
        time.sleep(0.06 if kind == "sharp" else 0)
        return sheet({"a": [torch.zeros(3, 4, 4)]}), f"{kind} {seed}"

    explorer = explore(draw, cache=0, quick=partial(draw, kind="quick"), seed=seed_control(0))

    async def drag():
        for seed in (1, 2, 3):
            explorer.controls["seed"].value = seed
            await asyncio.sleep(0.1)  # longer than it waits for a newer value
        assert drawn[1:] == [("quick", 1), ("quick", 2), ("quick", 3)]
        await asyncio.sleep(0.7)
        assert drawn[4:] == [("sharp", 3)]
        explorer.controls["seed"].value = 4
        await asyncio.sleep(0.05)
        assert explorer.fact == "sharp 4"  # whoever asks gets no quick one

    run_asleep(drag())


def test_a_picture_that_is_known_does_not_make_the_next_one_wait():
    drawn = []

    def draw(seed, kind="sharp"):
        drawn.append((kind, seed))
        time.sleep(0.2 if kind == "sharp" and seed else 0)  # seed 0 is known already
        return sheet({"a": [torch.zeros(3, 4, 4)]}), kind

    explorer = explore(draw, cache=0, quick=partial(draw, kind="quick"), seed=seed_control(0))

    async def move():
        for seed in (1, 0, 2):
            explorer.controls["seed"].value = seed
            await asyncio.sleep(1)

    run_asleep(move())
    assert drawn[0] == ("sharp", 0)
    assert drawn[1:] == [(kind, seed) for seed in (1, 0, 2) for kind in ("quick", "sharp")]


def test_the_controls_have_their_ranges():
    seed, cfg = seed_control(4, 20), cfg_control(3.0, 15.0)
    assert (seed.value, seed.min, seed.max, seed.step) == (4, 0, 20, 1)
    assert (cfg.value, cfg.min, cfg.max, cfg.step) == (3.0, 1.0, 15.0, 0.5)
    assert (cfg_control().value, seed_control().max) == (7.5, 31)
    t = t_control(torch.tensor([999, 500, 20, 0]))
    assert t.options == (999, 500, 20, 0)
    assert t.value == 20  # the middle one
    assert t_control([999, 500, 20, 0], 600).value == 500  # the nearest
    choice = choice_control("method", ["SDS", "DSD"])
    assert (choice.options, choice.value, choice.description) == (("SDS", "DSD"), "SDS", "method")
    assert choice_control("method", ["SDS", "DSD"], "DSD").value == "DSD"
