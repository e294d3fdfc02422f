import math

import pytest
import torch

from dsd_lab.cameras import Camera, orbit, project
from dsd_lab.scene import (
    Field,
    GridField,
    HashField,
    Occupancy,
    Scene,
    fit_views,
    fitting,
    psnr,
    render,
)
from dsd_lab.scene.field import lattice
from dsd_lab.scene.fit import roughness
from dsd_lab.scene.render import composite, march, sight, sphere, transmittance

f64 = torch.float64
VIEWS = (Camera(30, 20), Camera(-100, -5))


class Even(Field):
    """The same density everywhere in the unit sphere, and the same colour."""

    def __init__(self, density, colour):
        super().__init__()
        self.register_buffer("scale", torch.tensor(1.0, dtype=f64))
        colour = torch.tensor(colour, dtype=f64)
        self.values = torch.cat(
            [torch.tensor([math.log(math.expm1(density))], dtype=f64), colour.logit()]
        )

    def raw(self, points):
        return self.values[:, None].expand(4, len(points))


def rough(resolution=4, seed=0, dtype=f64):
    """A grid of random raw values."""
    field = GridField(resolution).to(dtype)
    with torch.no_grad():
        field.grid.copy_(
            torch.randn(
                field.grid.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype
            )
        )
    return field


def ball(resolution=32, centre=(0.0, 0.0, 0.0), radius=0.5, colour=(0.9, 0.1, 0.1)):
    """Dense in a ball of one colour, empty elsewhere."""
    field = GridField(resolution)
    with torch.no_grad():
        distance = (lattice(resolution) - torch.tensor(centre)).norm(dim=-1)
        field.grid[0, 0] = ((radius - distance) * 200).clamp(-200, 10)
        field.grid[0, 1:] = torch.tensor(colour).logit()[:, None, None, None]
    return field


def test_transmittance_and_weights_by_hand():
    density, delta = (
        torch.tensor([[1.0, 2.0, 3.0]], dtype=f64),
        torch.tensor([[math.log(2)]], dtype=f64),
    )
    torch.testing.assert_close(
        transmittance(density, delta), torch.tensor([[1, 1 / 2, 1 / 8]], dtype=f64)
    )
    torch.testing.assert_close(
        composite(density, delta), torch.tensor([[1 / 2, 3 / 8, 7 / 64]], dtype=f64)
    )
    torch.testing.assert_close(
        composite(torch.ones(1, 3, dtype=f64), delta),
        torch.tensor([[1 / 2, 1 / 4, 1 / 8]], dtype=f64),
    )


def test_a_ray_through_the_sphere_by_hand():
    origins = torch.tensor([[0.0, 0, 3], [0, 0.6, 3], [0, 2, 3], [0, 0, 3]])
    directions = torch.tensor([[0.0, 0, -1], [0, 0, -1], [0, 0, -1], [0, 0, 1]])
    near, far, hit = sphere(origins, directions)
    torch.testing.assert_close(near[:2], torch.tensor([2, 2.2]))
    torch.testing.assert_close(far[:2], torch.tensor([4, 3.8]))
    assert hit.tolist() == [True, True, False, False]
    lines = sight([Camera(0, 0)], 1)
    torch.testing.assert_close(
        march(GridField(), lines, 4).z, torch.tensor([[2.25, 2.75, 3.25, 3.75]])
    )


@pytest.mark.parametrize("samples", [1, 7, 64])
@pytest.mark.parametrize("seed", [None, 0])
def test_an_even_ball_has_its_closed_form(samples, seed):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    colour, background = [0.8, 0.4, 0.2], torch.tensor([0.1, 0.5, 0.9])
    seen = render(Even(0.7, colour), VIEWS, 16, samples, generator, background=background)
    lines = sight(VIEWS, 16, f64)
    along = (lines.origins * lines.directions).sum(1)
    chord = 2 * (1 - lines.origins.square().sum(1) + along.square()).sqrt()
    expected = (
        torch.zeros(2 * 16 * 16, dtype=f64)
        .index_copy(0, lines.pixel, 1 - torch.exp(-0.7 * chord))
        .reshape(2, 1, 16, 16)
    )
    torch.testing.assert_close(seen.opacity, expected)
    mix = (
        expected * torch.tensor(colour, dtype=f64)[:, None, None]
        + (1 - expected) * background.double()[:, None, None]
    )
    torch.testing.assert_close(seen.rgb, mix)
    assert (seen.opacity == 0).any()


def test_the_depth_of_an_even_ball_converges_to_its_closed_form():
    """Expected distance in a homogeneous medium of length L: near + 1/a - L / (exp(a L) - 1)."""
    a, length = 3.0, 2.0
    exact = 2 + 1 / a - length / math.expm1(a * length)
    errors = [
        abs(render(Even(a, [0.5] * 3), [Camera(0, 0)], 1, samples).depth.item() - exact)
        for samples in (16, 32, 64)
    ]
    assert errors[-1] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1) and errors[1] / errors[
        2
    ] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("normals", [False, True])
def test_gradients_against_finite_differences(skip, normals):
    field, occupancy, generator = rough(3), None, torch.Generator().manual_seed(0)
    if skip:
        occupancy = Occupancy(4)
        occupancy.cells = torch.rand(4, 4, 4, generator=generator) > 0.4
    grid = field.grid.detach().clone().requires_grad_()
    del field.grid

    def picture(grid):
        field.grid = grid
        seen = render(
            field, VIEWS, 3, 4, torch.Generator().manual_seed(3), occupancy, normals=normals
        )
        return [part for part in seen[:7] if part is not None]

    assert torch.autograd.gradcheck(picture, grid, eps=1e-6, atol=1e-6)


def test_skipping_what_is_empty_changes_nothing():
    field = ball(24, (0.2, 0.1, -0.1), 0.4)
    occupancy = Occupancy(16, threshold=1e-6).update(field)
    plain = render(field, VIEWS, 24, 48, torch.Generator().manual_seed(0), normals=True)
    skipped = render(
        field, VIEWS, 24, 48, torch.Generator().manual_seed(0), occupancy, normals=True
    )
    assert occupancy.cells.float().mean() < 0.4
    for name in ("rgb", "opacity", "weights", "z"):
        torch.testing.assert_close(getattr(skipped, name), getattr(plain, name))
    for name in ("depth", "normals"):  # these two are shares of what is seen, where anything is
        torch.testing.assert_close(
            getattr(skipped, name) * skipped.opacity, getattr(plain, name) * plain.opacity
        )


def test_skipped_samples_are_never_evaluated(monkeypatch):
    field, counts = ball(24, radius=0.3), []
    monkeypatch.setattr(
        field, "raw", lambda points: counts.append(len(points)) or GridField.raw(field, points)
    )
    render(field, VIEWS, 24, 48)
    render(field, VIEWS, 24, 48, occupancy=Occupancy().update(field))
    assert counts[0] == 48 * len(sight(VIEWS, 24).near) < 0.8 * 48 * 2 * 24 * 24
    assert counts[1] < 0.2 * counts[0]


def test_nothing_is_seen_when_all_is_empty():
    field, occupancy = GridField(), Occupancy()
    occupancy.cells[:] = False
    seen = render(field, VIEWS, 8, 8, occupancy=occupancy, normals=True)
    assert (seen.rgb == 1).all() and (seen.opacity == 0).all() and (seen.normals == 0).all()
    seen.rgb.sum().backward()
    assert (field.grid.grad == 0).all()


@pytest.mark.parametrize("cells", [5, 8, 16])
def test_occupied_cells_hold_all_that_is_above_the_threshold(cells):
    field = rough(9, seed=1)
    points = torch.rand(20000, 3, generator=torch.Generator().manual_seed(0), dtype=f64) * 2 - 1
    density = field(points)[0]
    occupancy = Occupancy(cells, threshold=density.quantile(0.99).item())
    assert occupancy(points).all()  # before the first update
    occupancy.update(field)
    assert occupancy(points[density > occupancy.threshold]).all()
    ceiling = field.ceiling(cells)
    x, y, z = ((points + 1) / 2 * cells).long().T
    assert (density <= ceiling[z, y, x] + 1e-12).all()


def test_occupancy_updates_every_so_often():
    scene = Scene(ball(16, radius=0.2), Occupancy(8, every=3))
    full = []
    for _ in range(4):
        full.append(bool(scene.occupancy.cells.all()))
        scene.step()
    assert full == [True, True, True, False]


def test_a_new_field_is_a_soft_blob_with_gradients_everywhere():
    field = GridField(16)
    density = field(torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0.99, 0, 0], [0.8, 0.8, 0]]))[0]
    assert 3 < density[0] < 7 and 0.3 < density[1] < 1 and 0 < density[2] < 0.1 and density[3] == 0
    render(field, orbit(6), 32, 48).rgb.square().sum().backward()
    inside = lattice(16).norm(dim=-1) < 0.95
    assert (field.grid.grad[0, :, inside] != 0).all()


def test_things_are_seen_where_they_are():
    for place in ((0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.2, -0.3, 0.4)):
        field = ball(32, place, 0.2)
        for camera in (Camera(0, 0), Camera(70, 30)):
            share = render(field, [camera], 32).opacity[0, 0]
            line = torch.arange(32) + 0.5
            middle = (
                torch.stack([(share * line).sum(), (share * line[:, None]).sum()]) / share.sum()
            )
            torch.testing.assert_close(
                middle, project(torch.tensor(place), camera, 32), atol=0.3, rtol=0
            )


def test_normals_point_outwards():
    field = ball(32, radius=0.5)
    points = torch.nn.functional.normalize(
        torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    normals = field.with_normals(points * 0.5)[2]
    assert (normals * points).sum(1).min() > 0.97
    camera = Camera(40, 25)
    seen = render(field, [camera], 33, normals=True)
    torch.testing.assert_close(
        seen.normals[0, :, 16, 16], camera.pose[:3, 2].float(), atol=0.05, rtol=0
    )
    assert seen.depth[0, 0, 16, 16].item() == pytest.approx(2.5, abs=0.05)
    assert (seen.weights * seen.facing.clamp(min=0)).sum() < 0.05 * seen.weights.sum()


def test_runs_repeat_to_the_bit():
    def run():
        scene, generator = (
            Scene(GridField(12), Occupancy(8, every=2)),
            torch.Generator().manual_seed(5),
        )
        optimizer = torch.optim.Adam(scene.field.parameters(), lr=0.2)
        for _ in range(5):
            optimizer.zero_grad()
            seen = scene.render(VIEWS, 24, 32, grad=True, generator=generator, normals=True)
            (
                seen.rgb.mean() + seen.opacity.square().mean() + seen.facing.square().mean()
            ).backward()
            optimizer.step()
            scene.step()
        return scene

    first, second = run(), run()
    assert torch.equal(first.field.grid, second.field.grid)
    assert torch.equal(first.images(VIEWS, 16), second.images(VIEWS, 16))


def test_upsampling_keeps_the_picture():
    field = rough(9, seed=2)
    before = render(field, VIEWS, 16, 32).rgb
    torch.testing.assert_close(
        render(field.upsampled(17), VIEWS, 16, 32).rgb, before
    )  # 8 cells become 16: the same function
    scene = Scene()
    before = scene.images(VIEWS, 32)
    old = scene.field.grid
    scene.upsample(64)
    assert (
        scene.field.resolution == 64
        and scene.field.grid is not old
        and scene.field.grid.requires_grad
    )
    assert psnr(scene.images(VIEWS, 32), before).min() > 45
    with pytest.raises(TypeError, match="GridField"):
        Scene(HashField(levels=2, entries=64)).upsample(64)


@pytest.mark.parametrize(
    "field", [ball(12), HashField(levels=3, entries=256, finest=32, hidden=8, features=4)]
)
def test_save_and_load(tmp_path, field):
    scene = Scene(
        field, Occupancy(8, threshold=0.02, every=5), background=torch.tensor([0.2, 0.3, 0.4])
    )
    for _ in range(5):
        scene.step()
    path = scene.save(tmp_path / "a.safetensors")
    again = Scene.load(path)
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in scene.state_dict().items()
    )
    assert torch.equal(scene.images(VIEWS, 12), again.images(VIEWS, 12))
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_state_brings_its_resolution():
    small, large = Scene(GridField(8), Occupancy(4)), Scene(ball(16))
    small.load_state_dict(large.state_dict())
    assert small.field.resolution == 16 and torch.equal(
        small.images(VIEWS, 8), large.images(VIEWS, 8)
    )
    with pytest.raises(ValueError, match="this scene has"):
        small.load_state_dict(Scene(HashField(levels=2, entries=64)).state_dict())
    with pytest.raises(ValueError, match="does not fit"):
        Scene(HashField(levels=2, entries=64)).load_state_dict(
            Scene(HashField(levels=3, entries=64)).state_dict()
        )


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta:UserWarning")
def test_a_state_from_the_cpu_leaves_a_scene_on_its_device():
    scene = Scene(GridField(8), Occupancy(4)).to("meta")  # stands for a GPU here
    scene.load_state_dict(Scene(GridField(16), Occupancy(8)).state_dict())
    assert {tensor.device.type for tensor in scene.state_dict().values()} == {
        "meta"
    } and scene.field.resolution == 16


def test_hash_encoding_by_hand():
    field = HashField(levels=2, features=1, entries=512, coarsest=4, finest=16)
    with torch.no_grad():
        field.tables.copy_(torch.arange(1024.0).reshape(2, 512, 1))
    # 5^3 corners of the coarse level have rows of their own; (1, 2, 3) is row 1 + 5 (2 + 5 * 3) =
    # 86, its neighbour in x 87
    codes = field.encode(torch.tensor([[-0.5, 0.0, 0.5], [-0.25, 0.0, 0.5]]))
    assert codes[0, 0] == 86 and codes[1, 0] == 86.5
    # 17^3 corners of the fine level share 512 rows: the first point is its corner (4, 8, 12)
    row = (4 ^ 8 * 2654435761 ^ 12 * 805459861) % 512
    assert codes[0, 1] == 512 + row


def test_hash_field_gradients_against_finite_differences():
    field = HashField(levels=2, features=2, entries=16, coarsest=2, finest=5, hidden=4).double()
    with torch.no_grad():
        field.tables.mul_(3e3)

    def loss():
        seen = render(field, VIEWS, 4, 6, normals=True)
        return (
            seen.rgb.square().sum()
            + (seen.normals * torch.linspace(-1, 1, 16, dtype=f64).reshape(4, 4)).sum()
        )

    loss().backward()
    generator, step = torch.Generator().manual_seed(0), 1e-6
    for parameter in field.parameters():
        direction, values = torch.randn(parameter.shape, generator=generator, dtype=f64), []
        for move in (step, -2 * step, step):
            with torch.no_grad():
                parameter += move * direction
            values.append(loss().item())
        assert (parameter.grad * direction).sum().item() == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-5
        )


def test_hash_field_is_a_field():
    field, again, other = HashField(), HashField(), HashField(seed=1)
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    density, colour = field(points)
    assert (
        density.shape == (100,)
        and colour.shape == (100, 3)
        and (density[points.norm(dim=1) > 1] == 0).all()
    )
    assert torch.equal(colour, again(points)[1]) and not torch.equal(colour, other(points)[1])
    inside = points.norm(dim=1) < 1
    torch.testing.assert_close(
        density[inside], GridField(64)(points)[0][inside], rtol=0.05, atol=0.1
    )
    assert Scene(field).images([Camera()], 8).shape == (1, 3, 8, 8)
    x, y, z = ((points + 1) * 4).long().T
    assert (density <= field.ceiling(8)[z, y, x] * 1.1).all()


def test_gradients_only_when_asked():
    scene = Scene(GridField(8))
    with torch.inference_mode():  # the rays kept from here must serve the calls below
        scene.render(Camera(), 4, 4)
    assert not scene.render(Camera(), 4, 4).rgb.requires_grad
    scene.render([Camera()], 4, 4, grad=True, normals=True).rgb.sum().backward()
    assert scene.field.grid.grad.abs().sum() > 0
    pictures = scene.images(orbit(3), 8)
    assert pictures.shape == (3, 3, 8, 8) and 0 <= pictures.min() and pictures.max() <= 1
    assert torch.equal(pictures[1], scene.render(orbit(3)[1], 8).rgb[0])


def test_a_scene_is_fitted_to_its_views():
    target = Scene(ball(24, (0.1, 0.1, 0.0), 0.5, (0.2, 0.6, 0.8)))
    cameras, seen = orbit(8), []
    images = target.images(cameras, 20)

    def keep(step, loss, scene):
        seen.append((step, loss, scene.field.resolution))

    settings = dict(steps=60, resolutions=(8, 16), batch=512, samples=24)
    scene = fit_views(images, cameras, progress=keep, **settings)
    held_out = orbit(4, start=22.5)
    assert psnr(scene.images(held_out, 20), target.images(held_out, 20)).mean() > 28
    assert [step for step, *_ in seen] == list(range(60)) and [r for *_, r in seen] == [8] * 30 + [
        16
    ] * 30
    assert seen[-1][1] < 0.1 * seen[0][1]
    short = settings | {"steps": 4}
    first, again, other = (
        fit_views(images, cameras, seed=seed, **short).field.grid for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    begun, losses = fitting(images, cameras, **short)
    empty = begun.field.grid.clone()
    next(losses)  # one step, and no more
    assert not torch.equal(begun.field.grid, empty) and len(list(losses)) == 3
    assert torch.equal(begun.field.grid, first)


def test_psnr_and_roughness_by_hand():
    torch.testing.assert_close(
        psnr(torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 4, 4), 0.6)),
        torch.tensor([20.0, 20.0]),
    )
    ramp = torch.arange(3.0).expand(1, 1, 3, 3, 3)  # 1 between neighbours in x, 0 in y and z
    assert roughness(ramp).item() == pytest.approx(1 / 3)


def test_errors():
    scene = Scene(GridField(4))
    for distance in (1.0, 0.3):
        with pytest.raises(ValueError, match="inside the unit sphere"):
            scene.render(Camera(distance=distance), 4)
    with pytest.raises(ValueError, match="samples must be"):
        scene.render(Camera(), 4, 0)
    with pytest.raises(ValueError, match="size must be"):
        scene.render(Camera(), 0)
    with pytest.raises(TypeError, match="Camera"):
        scene.render([30], 4)
    with pytest.raises(ValueError, match=r"points must be \(P, 3\)"):
        scene.field(torch.zeros(3))
    with pytest.raises(ValueError, match="resolution"):
        GridField(1)
    with pytest.raises(ValueError, match="power of two"):
        HashField(entries=1000)
    with pytest.raises(ValueError, match="coarsest < finest"):
        HashField(coarsest=64, finest=32)
    with pytest.raises(ValueError, match="at least 1"):
        Occupancy(0)
    with pytest.raises(ValueError, match="one a camera"):
        fit_views(torch.ones(2, 3, 8, 8), orbit(3))
    with pytest.raises(ValueError, match="steps must be"):
        fit_views(torch.ones(3, 3, 8, 8), orbit(3), steps=1)
    for wrong in (
        dict(batch=0),
        dict(batch=-1),
        dict(lr=0.0),
        dict(lr=math.nan),
        dict(resolutions=()),
    ):
        with pytest.raises(
            ValueError, match="at least one resolution, one ray a step and a rate above 0"
        ):
            fit_views(torch.ones(3, 3, 8, 8), orbit(3), **wrong)
    for wrong in (dict(features=0), dict(hidden=-1)):
        with pytest.raises(ValueError, match="(features|hidden) must be an int of at least 1"):
            HashField(**wrong)
    for kind in (GridField, HashField):
        with pytest.raises(ValueError, match="scale must be positive and finite, got -1"):
            kind(scale=-1.0)
    with pytest.raises(ValueError, match=r"background must be a number or \(3,\), got \(4,\)"):
        Scene(background=torch.ones(4))


def test_files_that_cannot_be(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="holds no scene"):
        Scene.load(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_text("junk")
    with pytest.raises(ValueError, match='y.safetensors" holds no scene'):
        Scene.load(tmp_path / "y.safetensors")
    with pytest.raises(ValueError, match=r"\.safetensors"):
        Scene().save(tmp_path / "scene.pt")


def test_a_kept_occupancy_counts_on():
    """With every 2, one step before and one after make the update."""
    field, kept, other = GridField(8), Occupancy(4, every=2), Occupancy(4, every=2)
    kept.step(field)
    other.load_state_dict(kept.state_dict())
    assert other.cells.all()
    with torch.no_grad():
        field.grid.fill_(-50.0)  # empty
    other.step(field)
    assert not other.cells.any()
