import math

import pytest
import torch

from dsd_lab.cameras import Camera, orbit
from dsd_lab.scene import REFERENCE, GridField, Ramp, Rendering, regularisation, render
from dsd_lab.scene.field import lattice
from dsd_lab.scene.regularisers import (
    TERMS,
    convexity,
    opaque,
    orientation,
    sparsity,
    weight_at,
    z_variance,
)

f64 = torch.float64


def rendering(opacity=None, weights=None, z=None, facing=None, normals=None):
    """A rendering of one view with just these parts, as nested lists or tensors; weights alone make
    a row of pixels.
    """

    def tensor(values):
        return None if values is None else torch.as_tensor(values, dtype=f64)

    weights, opacity = tensor(weights), tensor(opacity)
    if opacity is None:
        opacity = weights.sum(1)
    opacity = opacity.reshape(1, 1, *(opacity.shape if opacity.ndim > 1 else (1, -1)))
    return Rendering(None, opacity, None, tensor(normals), weights, tensor(z), tensor(facing), None)


def facing_the_front(*rows):
    """A normal map (1, 3, H, W) from rows of normals."""
    return torch.tensor(rows, dtype=f64).permute(2, 0, 1)[None]


def test_orientation_by_hand():
    seen = rendering(
        weights=[[0.5, 0.25], [0.125, 0.0], [0.0, 0.0]],
        facing=[[0.6, -1.0], [-0.2, 1.0], [0.9, 0.9]],
    )
    assert orientation(seen).item() == pytest.approx(0.5 * 0.36 / 2)
    nothing = rendering(weights=[[0.0, 0.0]], facing=[[1.0, 1.0]])
    assert orientation(nothing).item() == 0


def test_orientation_leaves_the_weights_alone():
    weights, facing = (torch.tensor([[0.5, 0.25]], dtype=f64, requires_grad=True) for _ in range(2))
    orientation(rendering(opacity=[0.75], weights=weights, facing=facing)).backward()
    assert weights.grad is None
    torch.testing.assert_close(
        facing.grad, torch.tensor([[2 * 0.5 * 0.5, 2 * 0.25 * 0.25]], dtype=f64)
    )


def test_sparsity_by_hand():
    assert sparsity(rendering(opacity=[0.0, math.sqrt(0.08)])).item() == pytest.approx(0.2)


def test_opaque_by_hand():
    assert opaque(rendering(opacity=[0.5, 0.5])).item() == pytest.approx(math.log(2))
    edge = -(0.001 * math.log(0.001) + 0.999 * math.log(0.999))
    assert opaque(rendering(opacity=[0.0, 1.0])).item() == pytest.approx(edge)
    assert edge == pytest.approx(0.0079, abs=5e-5)


def test_z_variance_by_hand():
    thick, thin, faint = [0.4, 0.4], [0.9, 0.0], [0.2, 0.2]
    z = [[2.0, 3.0]] * 3
    assert z_variance(rendering(weights=[thick], z=z[:1])).item() == pytest.approx(0.25)
    assert z_variance(rendering(weights=[thick, thin, faint], z=z)).item() == pytest.approx(0.125)
    assert z_variance(rendering(weights=[faint], z=z[:1])).item() == 0


def test_convexity_by_hand():
    left, right = (-0.6, 0.0, 0.8), (0.6, 0.0, 0.8)
    seen = rendering(
        opacity=[[1.0, 1.0], [1.0, 1.0]], normals=facing_the_front((left, right), (left, right))
    )
    # displayed: left (0.2, 0.5, 0.9), right (0.8, 0.5, 0.9); (left x right).y = 0.9 * 0.8 - 0.2 *
    # 0.9 = 0.54; down = up
    assert convexity(seen, resolution=2).item() == pytest.approx(-0.54)
    faint = seen._replace(opacity=seen.opacity / 2)
    assert convexity(faint, resolution=2).item() == pytest.approx(-0.54 / 4)


def test_convexity_takes_down_times_up():
    up, down = (0.0, 0.6, 0.8), (0.6, 0.0, 0.8)
    seen = rendering(
        opacity=[[1.0, 1.0], [1.0, 1.0]], normals=facing_the_front((up, up), (down, down))
    )
    # displayed: up (0.5, 0.8, 0.9), down (0.8, 0.5, 0.9); (down x up).y = 0.9 * 0.5 - 0.8 * 0.9 =
    # -0.27
    assert convexity(seen, resolution=2).item() == pytest.approx(0.27)


def test_convexity_prefers_a_ball_to_a_bowl_averaged_over_views():
    x, y = torch.meshgrid(*(torch.linspace(-0.9, 0.9, 16, dtype=f64),) * 2, indexing="xy")
    inside = (x**2 + y**2 < 0.8).to(f64)

    def average(bend):
        values = []
        for camera in orbit(8, elevation=0.0):
            local = torch.stack([bend * x, -bend * y, (1 - x**2 - y**2).clamp(min=0).sqrt()])
            normals = torch.einsum("ij,jhw->ihw", camera.pose[:3, :3], local) * inside
            values.append(convexity(rendering(opacity=inside, normals=normals[None])).item())
        return sum(values) / 8

    assert average(1) < average(-1)


def scenes(resolution=4):
    field = GridField(resolution).double()
    with torch.no_grad():
        field.grid += torch.randn(
            field.grid.shape, generator=torch.Generator().manual_seed(0), dtype=f64
        )
    return field


@pytest.mark.parametrize("name", TERMS)
def test_gradients_against_finite_differences(name):
    field = scenes()
    grid = field.grid.detach().clone()
    with torch.no_grad():
        grid[0, 0] += 3  # full enough for every term to see something
    direction = torch.randn(grid.shape, generator=torch.Generator().manual_seed(1), dtype=f64)
    del field.grid

    def seen(step):
        field.grid = grid + step * direction
        return render(field, [Camera(30, 10), Camera(200, 30)], 8, 12, normals=True)

    start = seen(torch.zeros((), dtype=f64))

    def loss(step):
        now = seen(step)
        # the weights of orientation count as constants
        return TERMS[name](now._replace(weights=start.weights) if name == "orientation" else now)

    step = torch.zeros((), dtype=f64, requires_grad=True)
    (exact,) = torch.autograd.grad(loss(step), step)
    h = torch.tensor(1e-5, dtype=f64)
    assert exact.item() != 0
    assert exact.item() == pytest.approx(((loss(h) - loss(-h)) / (2 * h)).item(), rel=1e-5)


def test_each_term_improves_what_it_is_for():
    """A few steps down each term from the same soft blob make that term smaller."""
    for term in TERMS.values():
        field, values = GridField(12), []
        optimizer = torch.optim.SGD(field.parameters(), lr=1.0)
        with torch.no_grad():
            field.grid[0, 0] += 2 + lattice(12)[..., 0].sin()
        for _ in range(4):
            optimizer.zero_grad()
            loss = term(render(field, [Camera(30)], 16, 24, normals=True))
            values.append(loss.item())
            loss.backward()
            optimizer.step()
        assert values[-1] < values[0], term.__name__


def test_the_sum_follows_its_weights():
    seen = render(scenes(), [Camera()], 8, 12, normals=True)
    parts = {name: term(seen).item() for name, term in TERMS.items()}
    for progress, sparse in ((0.0, 0.15), (0.15, 0.075), (0.3, 0.0), (1.0, 0.0)):
        expected = (
            0.1 * parts["orientation"]
            + sparse * parts["sparsity"]
            + 0.1 * parts["opaque"]
            + parts["z_variance"]
            + parts["convexity"]
        )
        assert regularisation(seen, progress).item() == pytest.approx(expected)
    assert regularisation(seen, weights={"opaque": 2.0}).item() == pytest.approx(
        2 * parts["opaque"]
    )
    assert regularisation(seen, weights={}).item() == 0
    assert weight_at(Ramp(1.0, 3.0, 0.5), 0.25) == 2.0 and set(REFERENCE) == set(TERMS)


def test_errors():
    seen = render(GridField(4), [Camera()], 4, 4)
    for name in ("orientation", "convexity"):
        with pytest.raises(ValueError, match="normals=True"):
            regularisation(seen, weights={name: 1.0})
    assert regularisation(seen, weights={"orientation": 0.0, "opaque": 1.0}) > 0
    with pytest.raises(ValueError, match="unknown terms roundness; allowed: orientation"):
        regularisation(seen, weights={"roundness": 1.0})
    with pytest.raises(ValueError, match="progress"):
        regularisation(seen, 1.5)
