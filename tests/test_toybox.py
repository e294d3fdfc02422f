"""The toybox: distances worked by hand, pictures against closed forms, twins, prompts and the
cache.
"""

import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from dsd_lab.cameras import BANK, Camera, orbit
from dsd_lab.worlds import ToyboxWorld, Toys, make_toys, render, toy_shop, toybox
from dsd_lab.worlds.toybox import views as views_module
from dsd_lab.worlds.toybox.builder import INK, SNOW, Toy
from dsd_lab.worlds.toybox.shapes import SHAPES, reach
from dsd_lab.worlds.toybox.toys import _gathered, check_kind, with_article
from dsd_lab.worlds.toybox.world import COLOURS, KINDS

RED, BLUE = COLOURS["red"], COLOURS["blue"]
FRONT, BACK = Camera(0, 0), Camera(180, 0)


def alone(build) -> Toys:
    """One toy of the shapes that `build` adds, neither moved nor scaled."""
    toy = Toy("apple", 0)
    build(toy)
    return _gathered(["apple"], ["red"], [toy])


def at(*points):
    return torch.tensor([points], dtype=torch.float32)


# Shapes


@pytest.mark.parametrize(
    ("shape", "size", "point", "distance"),
    [
        ("ball", (0.5, 0.5, 0.5), (1, 0, 0), 0.5),
        ("ball", (0.5, 0.5, 0.5), (0.3, 0, 0.4), 0.0),
        ("ball", (0.5, 0.5, 0.5), (0, 0, 0), -0.5),
        ("ball", (0.5, 0.2, 0.1), (0, 0, 0), -0.1),
        ("ball", (0.5, 0.2, 0.1), (0, 0.5, 0), 0.3),
        ("box", (0.3, 0.2, 0.1), (1, 0, 0), 0.7),
        ("box", (0.3, 0.2, 0.1), (0.6, 0.6, 0), 0.5),
        ("box", (0.3, 0.2, 0.1, 0, 0.05), (0.6, 0.6, 0), 0.45),
        ("box", (0.3, 0.2, 0.1), (0, 0, 0), -0.1),
        ("cone", (0.5, 0.5, 0.4), (1, 0, 0), 0.5),
        ("cone", (0.5, 0.5, 0.4), (0, -1, 0), 0.6),
        ("cone", (0.5, 0.5, 0.4), (0.8, 0.8, 0), 0.5),
        ("cone", (0.5, 0.5, 0.4), (0, 0.3, 0), -0.1),
        ("cone", (1, 0, 0.5), (0.5, 1.0, 0), math.sqrt(0.5)),  # its side falls by 45 degrees
        ("pill", (0.2, 0.2, 0.5), (0, 1, 0), 0.3),
        ("pill", (0.2, 0.2, 0.5), (0, 0.1, -1), 0.8),
        ("pill", (0.3, 0.1, 0.5), (0, -1, 0), 0.2),
        ("pill", (0.3, 0.1, 0.5), (0, 1, 0), 0.4),
        ("ring", (0.5, 0.1), (0, 0, 0), 0.4),
        ("ring", (0.5, 0.1), (0.3, 0.2, 0.4), 0.1),
        ("prism", (0.5, 1, 0, 0.1), (0, -0.5, 0), 0.5),
        ("prism", (0.5, 1, 0, 0.1), (0, 0.3, 0.4), 0.3),
        ("prism", (1, 1, 0, 0.5), (1, 1, 0), math.sqrt(0.5)),
        ("prism", (1, 1, 1, 0.5), (2, 0.5, 0), 1.0),  # its tip above the right corner
        ("prism", (0.5, 1, 0, 0.1), (0, 0.3, 0), -0.1),
    ],
)
def test_distance_by_hand(shape, size, point, distance):
    sizes = torch.tensor(list(size) + [0.0] * (5 - len(size))).reshape(5, 1, 1, 1)
    found = SHAPES[shape](torch.tensor(point, dtype=torch.float32).reshape(1, 1, 3, 1), sizes)
    assert found.item() == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_reach_is_how_far_the_distance_is_negative(shape):
    sizes = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.05]).reshape(5, 1, 1, 1)
    if shape in ("ball", "pill", "ring", "prism"):
        sizes[4] = 0
    points = torch.rand(1, 1, 3, 200_000, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    inside = points[0, 0][:, SHAPES[shape](points, sizes)[0, 0] < 0]
    for u in torch.nn.functional.normalize(
        torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, -1], [1, 2, -1]]), dim=1
    ):
        far = reach(shape, u.reshape(1, 1, 3, 1), sizes).item()
        assert 0.8 * far - 0.02 < (u @ inside).amax() <= far + 1e-5


def test_a_cut_is_taken_out_of_the_body_and_not_of_parts():
    def build(t):
        t.ball((0, 0, 0), 0.5, RED, role="body")
        t.box((0, -1, 0), (1, 1, 1), BLUE, role="cut", edge=0)
        t.ball((0, -0.3, 0), 0.1, INK)

    toys = alone(build)
    points = at((0, 0.7, 0), (0, -0.1, 0.2), (0, 0.1, 0), (0, -0.3, 0), (0.2, 0, 0))
    wanted = [0.2, 0.1, -0.1, -0.1, 0.0]
    assert toys.sdf(points)[0].tolist() == pytest.approx(wanted, abs=1e-6)
    colours = toys.colour(at((0, 0.5, 0), (0.3, -0.001, 0), (0, -0.4, 0)))[0]
    assert torch.allclose(colours, torch.tensor([RED, BLUE, INK]))


def test_bodies_melt_into_each_other_and_parts_do_not():
    def build(role):
        def balls(t):
            t.melt = 0.2
            for side in (-1, 1):
                t.ball((side * 0.3, 0, 0), 0.3, RED, role=role)

        return alone(balls)

    between = at((0, 0.1, 0), (0.8, 0, 0))
    apart = math.hypot(0.3, 0.1) - 0.3
    assert build("part").sdf(between)[0].tolist() == pytest.approx([apart, 0.2])
    assert build("body").sdf(between)[0].tolist() == pytest.approx(
        [apart - 0.2 / 4, 0.2]
    )  # far from one: unchanged


def test_later_paint_goes_over_earlier():
    def build(t):
        t.ball((0, 0, 0), 0.5, RED)
        t.ball((0, 0, 0.5), 0.3, SNOW, role="paint")
        t.box((0, 0, 0.5), (0.1, 0.1, 0.1), BLUE, role="paint")

    colours = alone(build).colour(at((0, 0, 0.5), (0.2, 0, 0.46), (0.5, 0, 0)))[0]
    assert torch.allclose(colours, torch.tensor([BLUE, SNOW, RED]))


def test_density_is_opaque_inside():
    toys = alone(lambda t: t.ball((0, 0, 0), 0.5, RED))
    assert toys.density(at((0, 0, 0), (0.5, 0, 0), (1, 0, 0)), 40)[0].tolist() == pytest.approx(
        [40, 20, 0], abs=1e-4
    )
    with pytest.raises(ValueError, match="sharpness must be positive and finite, got 0"):
        toys.density(at((0, 0, 0)), 0)


def test_distance_has_a_gradient():
    points = at((0.6, 0, 0.8), (0, -0.7, 0)).requires_grad_()
    toys = alone(lambda t: t.ball((0, 0, 0), 0.5, RED))
    (normal,) = torch.autograd.grad(toys.sdf(points).sum(), points)
    assert torch.allclose(normal, at((0.6, 0, 0.8), (0, -1, 0)), atol=1e-5)


def test_points_are_checked():
    with pytest.raises(ValueError, match=r"points must be \(1 or 2, P, 3\), got \(3, 5, 3\)"):
        make_toys("duck", [0, 1]).sdf(torch.zeros(3, 5, 3))
    assert make_toys("duck", [0, 1]).sdf(torch.zeros(1, 0, 3)).shape == (2, 0)


# Pictures


@pytest.fixture(scope="module")
def ball():
    return alone(lambda t: t.ball((0, 0, 0), 0.5, (1.0, 1.0, 1.0)))


def test_silhouette_of_a_ball(ball):
    seen = render(ball, [FRONT, Camera(70, 30)], 64)
    radius = (
        math.tan(math.asin(0.5 / 3)) / math.tan(math.radians(20)) * 32
    )  # of the cone that touches it, in pixels
    assert seen.alpha.sum(dim=(2, 3, 4))[0].tolist() == pytest.approx(
        [math.pi * radius**2] * 2, rel=0.012
    )
    assert seen.alpha.min() == 0 and seen.alpha.max() == 1
    assert (seen.rgb[seen.alpha.expand_as(seen.rgb) == 0] == 1).all()  # on white


def test_depth_of_a_ball(ball):
    depth = render(ball, [FRONT, Camera(0, 0, 2)], 33).depth
    assert depth[0, :, 0, 16, 16].tolist() == pytest.approx([2.5, 1.5], abs=1e-3)
    assert depth[0, 0, 0, 0, 0] == 0


def test_the_light_stays_in_the_world(ball):
    front, back, top, low = (
        render(ball, [FRONT, BACK, Camera(0, 90), Camera(0, -90)], 32).rgb[0].mean(1)
    )
    assert front[16, 20] > front[16, 11]  # the light is on the right, seen from the front
    assert back[16, 20] < back[16, 11]  # and on the left, seen from the back
    assert front[16, 16] > back[16, 16] and top[16, 16] > low[16, 16]


def test_render_is_the_same_alone_and_in_a_batch():
    toys = make_toys(["duck", "mug", "duck"], [3, 4, 5])
    cameras = orbit(2)
    batch = render(toys, cameras, 32)
    for i in range(3):
        one = render(toys.subset(i), cameras[1:], 32)
        assert (
            one.rgb[0, 0] - batch.rgb[i, 1]
        ).abs().mean() < 1e-3  # but for a ray that just grazes
    assert batch.rgb.shape == (3, 2, 3, 32, 32) and batch.alpha.shape == batch.depth.shape == (
        3,
        2,
        1,
        32,
        32,
    )
    assert batch.rgb.min() >= 0 and batch.rgb.max() <= 1


def test_render_refuses():
    with pytest.raises(TypeError, match="cameras must be a sequence"):
        render(make_toys("duck", [0]), FRONT)
    with pytest.raises(ValueError, match="size must be an int of at least 1"):
        render(make_toys("duck", [0]), [FRONT], 0)


# Toys


@pytest.fixture(scope="module")
def many():
    return make_toys([kind for kind in KINDS for _ in range(8)], list(range(8)) * len(KINDS))


def test_toys_are_in_the_unit_sphere_and_fill_it(many):
    around = torch.nn.functional.normalize(
        torch.randn(1, 2000, 3, generator=torch.Generator().manual_seed(0)), dim=2
    )
    assert many.sdf(around).min() > 0
    assert many.sdf(around * 0.9).amin(1).max() < 0.08


def test_distance_is_never_too_large(many):  # or a ray would jump through the surface
    points = torch.rand(1, 4000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distance = many.sdf(points)
    for own in distance[::5]:
        outer, inner = points[0, own > 0], points[0, own < 0]
        nearest = torch.cdist(outer, inner).amin(1)
        assert (own[own > 0] <= nearest + 1e-4).all()


def test_toys_come_from_their_seed():
    points = torch.rand(1, 300, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    toys, again = make_toys(["chair", "duck", "chair"], [5, 5, 6]), make_toys("chair", [5])
    assert torch.allclose(again.sdf(points)[0], toys.sdf(points)[0], atol=1e-6)
    assert (toys.sdf(points)[0] - toys.sdf(points)[2]).abs().max() > 0.05
    assert torch.equal(toys.subset([2, 0]).sdf(points)[1], toys.subset(0).sdf(points)[0])


def test_every_colour_comes_up(many):
    for kind in KINDS:
        assert {c for c, own in zip(many.colours, many.kinds, strict=True) if own == kind} == set(
            COLOURS
        )


@pytest.fixture(scope="module")
def seen(many):
    """Each from a front and from behind."""
    return render(many, [Camera(30, 20), Camera(-150, 0)], 32)


@pytest.mark.slow
def test_colours_dominate(many, seen):
    pixels = (
        ((seen.rgb - (1 - seen.alpha)) / seen.alpha.clamp(min=0.01)).movedim(2, -1).flatten(1, 3)
    )
    palette = torch.tensor(list(COLOURS.values())) * 0.88  # under the light
    nearest = torch.cdist(pixels, palette).argmin(2)
    votes = (
        torch.nn.functional.one_hot(nearest, len(palette))
        * (seen.alpha > 0.9).flatten(1)[..., None]
    )
    elected = [list(COLOURS)[i] for i in votes.sum(1).argmax(1).tolist()]
    assert sum(a == b for a, b in zip(elected, many.colours, strict=True)) > 0.85 * len(many)


@pytest.mark.slow
def test_kinds_are_distinct(seen):
    """Half of a kind's toys look more like its other half than like any other kind."""
    masks = avg_pool2d(seen.alpha.flatten(0, 1), 2).reshape(len(KINDS), 2, 4, -1)
    apart = torch.cdist(*masks.mean(2).unbind(1))
    own, others = apart.diag(), apart.clone().fill_diagonal_(torch.inf)
    assert (own < others.amin(0)).all() and (own < others.amin(1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [10, 11])
def test_twins_differ_only_behind(seed):
    twins = make_toys(
        [kind for kind in KINDS for _ in range(3)], [seed] * 3 * len(KINDS), [0, 1, 2] * len(KINDS)
    )
    cameras = [Camera(-45, 0), Camera(0, 20), Camera(45, 20), Camera(-135, 20), BACK]
    rgb = render(twins, cameras, 32).rgb
    rgb = rgb.unflatten(0, (len(KINDS), 3))
    rmse = (rgb - rgb.roll(1, dims=1)).square().mean(dim=(3, 4, 5)).sqrt()  # (kinds, pairs, views)
    assert rmse[:, :, :3].max() < 0.01
    assert rmse[:, :, 3:].min() > 0.04
    assert len(set(twins.captions)) == len(KINDS)


def test_captions():
    toys = make_toys(["chair", "apple", "teddy bear"], [0, 1, 2])
    assert toys.captions == tuple(
        with_article(f"{c} {k}") for c, k in zip(toys.colours, toys.kinds, strict=True)
    )
    assert (
        with_article("orange apple") == "an orange apple"
        and with_article("teddy bear") == "a teddy bear"
    )
    assert repr(toys) == "Toys(3 of apple, chair, teddy bear)" and len(toys) == 3


def test_make_toys_refuses():
    with pytest.raises(ValueError, match='unknown kind "dargon"; did you mean "dragon"'):
        make_toys(["dargon"], [0])
    with pytest.raises(TypeError, match="a kind is a string such as 'apple', got int"):
        check_kind(3)
    with pytest.raises(ValueError, match="equally many, got 1, 2 and 2"):
        make_toys(["duck"], [0, 1])
    with pytest.raises(ValueError, match="every back must be 0, 1, 2 or None, got 3"):
        make_toys(["duck"], [0], [3])
    with pytest.raises(ValueError, match="seeds is empty"):
        make_toys("duck", [])


# The world and its cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DSD_LAB_CACHE", str(tmp_path / "cache"))
    toybox.cache_clear()
    yield tmp_path / "cache"
    toybox.cache_clear()


@pytest.fixture
def quick(monkeypatch):
    """Noise in place of renders, where it is all the same what is kept."""

    def noise(toys, cameras, size=64):
        drawn = torch.Generator().manual_seed(len(toys.kinds[0]))
        return SimpleNamespace(
            rgb=torch.rand(len(toys), len(cameras), 3, size, size, generator=drawn)
        )

    monkeypatch.setattr(views_module, "render", noise)


def small(size=64, per_kind=1):
    return toybox(size, per_kind, (Camera(30, 20),))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One toy of every kind from one camera, rendered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSD_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        toybox.cache_clear()
        yield small()
    toybox.cache_clear()


def test_world(world):
    assert (
        isinstance(world, ToyboxWorld) and world.name == "toybox" and "Apache-2.0" in world.credit
    )
    assert world.views.shape == (16, 1, 3, 64, 64) and world.views.dtype == torch.uint8
    assert world.prompts[:16] == tuple(with_article(kind) for kind in KINDS)
    assert set(world.prompts[16:]) == set(world.toys.captions)
    assert repr(world) == "ToyboxWorld(16 toys, 1 views of 64x64, 32 prompts)"
    for prompt in world.prompts:
        assert world.resolve(prompt) == prompt and len(world.index(prompt)) == 1
    assert world.kind_label.tolist() == list(range(16)) and len(world.groups.unique()) == 16


def test_prompts(world):
    assert world.resolve("Teddy  Bear") == world.resolve("teddy") == "a teddy bear"
    assert world.resolve("an dragon") == "a dragon" and world.resolve("burger") == "a hamburger"
    with pytest.raises(
        ValueError,
        match=re.escape('unknown prompt "a dargon"; did you mean "a dragon"? (32 prompts'),
    ):
        world.index("a dargon")
    with pytest.raises(TypeError, match="a prompt is a string such as 'an apple', got int"):
        world.index(3)


def test_images(world):
    duck = world.images("duck")
    assert duck.shape == (1, 1, 3, 64, 64) and duck.dtype == torch.float32
    assert torch.equal((duck * 255).round().byte(), world.views[world.index("a duck")])
    assert torch.equal(world.images("duck", 0), duck[:, 0]) and len(world.images()) == 16
    with pytest.raises(ValueError, match="camera_index must be from 0 to 0, got 1"):
        world.images("duck", 1)


def test_smaller_pictures_are_means(cache, quick):
    large, middle = small(), small(16)
    block = large.views[3, 0, 1, 20:24, 24:28].float().mean()
    assert abs(middle.views[3, 0, 1, 5, 6] - block) <= 0.5
    assert middle.views.shape == (16, 1, 3, 16, 16) and len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(("size", "near"), [(48, 32), (128, 64), (8, 16), ("64", 64), (True, 16)])
def test_sizes(size, near):
    with pytest.raises(ValueError, match=f"size must be one of 16, 32, 64, got .*; try {near}"):
        toybox(size)


def test_plan_has_twins():
    from dsd_lab.worlds.toybox.world import _plan

    seeds, backs = _plan(16)
    assert seeds == [*range(10), 10, 10, 10, 11, 11, 11] and backs == [None] * 10 + [0, 1, 2] * 2
    assert _plan(3) == ([0, 1, 2], [None] * 3)
    with pytest.raises(ValueError, match="per_kind must be an int of at least 1, got 0"):
        toybox(64, 0)


def test_cache_is_reused(cache, quick, monkeypatch):
    views = small().views
    toybox.cache_clear()
    monkeypatch.setattr(views_module, "render", None)  # would fail if it were called
    assert torch.equal(small().views, views)
    assert [file.suffix for file in cache.iterdir()] == [".npz"]


def test_damaged_cache_is_made_anew(cache, quick):
    views = small().views
    (file,) = cache.iterdir()
    for damage in (lambda b: b[:1000], lambda b: b"", lambda b: b[:5000] + b"\0" * 500 + b[5500:]):
        file.write_bytes(damage(file.read_bytes()))
        toybox.cache_clear()
        assert torch.equal(small().views, views)
        with np.load(file, allow_pickle=False) as content:
            assert content["views"].shape == (16, 1, 3, 64, 64)


def test_a_cache_that_cannot_be_written_is_a_warning(cache, quick, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    views = small().views
    (file,) = cache.iterdir()
    file.unlink()
    toybox.cache_clear()
    monkeypatch.setattr("os.replace", fail)
    with pytest.warns(UserWarning, match="cannot be written .*disk full.*DSD_LAB_CACHE"):
        assert torch.equal(small().views, views)  # the work is not lost
    assert list(cache.iterdir()) == []  # and no half file is left


# The pictures that come with the package


def test_the_usual_world_is_not_rendered(cache, monkeypatch):
    monkeypatch.setattr(views_module, "render", None)
    world = toybox(32)
    assert world.views.shape == (256, 24, 3, 32, 32) and world.cameras == BANK
    assert not cache.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["car", "lamp", "teddy bear"])
def test_the_shipped_pictures_are_what_the_code_renders(kind):
    """Four toys, two of them twins, from every camera: to the bit on the machine that made them; on
    another, a ray that just grazes a toy may miss it.
    """
    world = toybox(64)
    four = torch.arange(8, 12) + 16 * KINDS.index(kind)
    rgb = render(world.toys.subset(four), world.cameras).rgb
    steps = ((rgb * 255).round() - world.views[four].float()).abs()
    assert world.toys.kinds[four[0]] == kind and (steps > 1).double().mean() < 1e-5


def test_a_damaged_shipped_file_is_an_error(cache, monkeypatch, tmp_path):
    copy = shutil.copytree(views_module.DATA, tmp_path / "data")
    monkeypatch.setattr(views_module, "DATA", copy)
    content = bytearray((copy / "chair.webp").read_bytes())
    content[5000] ^= 1
    (copy / "chair.webp").write_bytes(content)
    with pytest.raises(ValueError, match="chair.webp does not match its checksum; reinstall"):
        toybox(64)
    (copy / "chair.webp").unlink()
    with pytest.raises(ValueError, match="chair.webp is missing or cannot be read; reinstall"):
        toybox(64)


@pytest.mark.slow
def test_a_sheet_is_read_as_it_was_written(monkeypatch, tmp_path):
    from dsd_lab.worlds.build import toybox as build

    monkeypatch.setattr(build, "sheet", lambda kind: tmp_path / f"{kind}.webp")
    views = torch.randint(0, 256, (3, 5, 3, 16, 16), dtype=torch.uint8)  # noise takes long to write
    views = views.repeat_interleave(4, 3).repeat_interleave(4, 4)
    build.write_sheet("chair", views.numpy())
    assert torch.equal(views_module.tiles((tmp_path / "chair.webp").read_bytes()), views)


def test_a_shop_has_every_toy_and_no_picture(monkeypatch):
    monkeypatch.setattr(views_module, "render", None)  # nothing is rendered
    shop = toy_shop(8, first=40)
    assert len(shop) == 128 and shop.cameras == () and shop.images().shape == (128, 0, 3, 64, 64)
    assert len(shop.prompts) == 16 + 128  # eight seeds show every colour
    assert shop.resolve("red chair") == "a red chair"
    assert len(shop.index("a chair")) == 8 and len(shop.index("a red chair")) == 1
    own = shop.toys.subset(shop.index("a red chair"))
    assert own.captions == ("a red chair",)
    p, chairs = torch.rand(1, 50, 3), make_toys("chair", range(40, 48))
    assert torch.equal(shop.toys.subset(shop.index("a chair")).sdf(p), chairs.sdf(p))
