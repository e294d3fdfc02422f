"""Volume rendering: what a camera sees of a field, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras import Camera, check_cameras, rays
from ..checks import at_least
from ..gradients import through
from ..threads import one_thread
from .field import Field, Occupancy
from .lights import Lights, shade

SAMPLES = 64
KEPT = 128  # pixels a side of the largest pictures whose rays are kept: larger ones take much room


class Rays(NamedTuple):
    """The N rays of some pictures that meet the unit sphere: origins and unit directions (N, 3),
    near and far (N,).

    near and far are the distances at which a ray enters and leaves the sphere; pixel (N,) int64 is
    where it belongs in the pictures, as an index into their V * H * W pixels.
    """

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    pixel: Tensor

    def select(self, index: Tensor) -> Rays:
        """Some of the rays, by an int64 index (M,)."""
        return Rays(*(part.index_select(0, index) for part in self))


class Marched(NamedTuple):
    """What N rays see: rgb (N, 3), opacity and depth (N,), normals (N, 3) or None; and S samples
    along each, (N, S).

    weights: each sample's share of the pixel; z: its distance from the camera; facing: normal .
    direction, or None.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor | None
    weights: Tensor
    z: Tensor
    facing: Tensor | None


class Rendering(NamedTuple):
    """V pictures of H x W pixels: rgb (V, 3, H, W), opacity and depth (V, 1, H, W), normals (V, 3,
    H, W) or None.

    rgb in [0, 1]. depth: expected distance from the camera to what is seen, 0 where there is
    nothing. normals: unit vectors of the world, 0 where there is nothing. For the N rays that meet
    the unit sphere, `pixel` (N,) is their place among the V * H * W pixels, and weights, z and
    facing (N, S) are their samples', as in `Marched`.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor | None
    weights: Tensor
    z: Tensor
    facing: Tensor | None
    pixel: Tensor


@one_thread()
def render(
    field: Field,
    cameras: Sequence[Camera],
    size: int,
    samples: int = SAMPLES,
    generator: torch.Generator | None = None,
    occupancy: Occupancy | None = None,
    background: float | Tensor = 1.0,
    normals: bool = False,
    lights: Lights | None = None,
    chunk: int | None = None,
) -> Rendering:
    """Pictures of a field from some cameras, differentiable in the field's parameters.

        rgb = sum_i weights_i colour_i + (1 - sum_i weights_i) background

    over `samples` points of each pixel's ray.

    size: pixels a side. generator: each sample falls anywhere in its part of the ray; None puts it
    in the middle, for repeatable pictures. occupancy: samples in cells that it holds empty count as
    empty and cost nothing. background: a number, (3,), or a colour a pixel, (V * H * W, 3).
    normals: also find normals, at about twice the time. lights: a lamp a view (see `shade`), which
    needs them too. chunk: see `march`.
    Raises ValueError for a camera in the unit sphere, and what `Camera` and `rays` raise.
    """
    cameras = check_cameras(cameras)
    views, lines = len(cameras), sight(cameras, size, field.dtype, field.device)
    nothing = torch.as_tensor(background, dtype=field.dtype, device=field.device)
    behind = nothing.index_select(0, lines.pixel) if nothing.ndim == 2 else nothing
    if lights is not None:
        lights = lights.select(lines.pixel // size**2)
    seen = march(
        field, lines, samples, generator, occupancy, behind, normals, lights=lights, chunk=chunk
    )

    def picture(values, beyond=0.0):
        values = values.reshape(len(lines.pixel), -1)
        beyond = torch.as_tensor(beyond, dtype=values.dtype, device=values.device).expand(
            views * size * size, values.shape[1]
        )
        return (
            beyond.index_copy(0, lines.pixel, values)
            .reshape(views, size, size, -1)
            .permute(0, 3, 1, 2)
            .contiguous()
        )

    return Rendering(
        picture(seen.rgb, nothing),
        picture(seen.opacity),
        picture(seen.depth),
        None if seen.normals is None else picture(seen.normals),
        seen.weights,
        seen.z,
        seen.facing,
        lines.pixel,
    )


def sight(
    cameras: Sequence[Camera],
    size: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Rays:
    """The rays of square pictures that meet the unit sphere; each camera's are worked out once and
    then kept, but for large pictures.

    Raises ValueError for a camera in the unit sphere.
    """
    find = _sight if size <= KEPT else _sight.__wrapped__
    each = [find(camera, size, dtype, torch.device(device)) for camera in check_cameras(cameras)]
    if len(each) == 1:
        return each[0]
    pixel = torch.cat([lines.pixel + view * size * size for view, lines in enumerate(each)])
    return Rays(
        *(torch.cat(parts) for parts in zip(*(lines[:4] for lines in each), strict=True)), pixel
    )


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is kept must serve later calls that want gradients
def _sight(camera, size, dtype, device):
    if camera.distance <= 1:
        raise ValueError(
            "the camera stands inside the unit sphere that holds the scene "
            f"(distance {camera.distance:g}); its distance must be greater than 1"
        )
    origins, directions = (part.reshape(-1, 3) for part in rays([camera], size, torch.float64))
    near, far, hit = sphere(origins, directions)
    pixel = hit.nonzero().squeeze(1)
    found = (
        part.index_select(0, pixel).to(device, dtype) for part in (origins, directions, near, far)
    )
    return Rays(*found, pixel.to(device))


def sphere(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays (N, 3) enter and leave the unit sphere, and whether they meet it: near, far, hit,
    each (N,).

        |origin + z direction|^2 = 1   gives   z = -along -+ sqrt(along^2 - (|origin|^2 - 1)),
            along = origin . direction

    By hand: from (0, 0, 3) towards (0, 0, -1): along = -3, the root is sqrt(9 - 8) = 1, so near = 2
    and far = 4. Rays that miss have near = far, and hit is false. Directions are unit vectors;
    origins lie outside the sphere.
    """
    along = (origins * directions).sum(1)
    square = along.square() - origins.square().sum(1) + 1
    root = square.clamp(min=0).sqrt()
    return -along - root, -along + root, (square > 0) & (along < 0)


def march(
    field: Field,
    lines: Rays,
    samples: int = SAMPLES,
    generator: torch.Generator | None = None,
    occupancy: Occupancy | None = None,
    background: float | Tensor = 1.0,
    normals: bool = False,
    lights: Lights | None = None,
    chunk: int | None = None,
) -> Marched:
    """What rays see of a field: one sample in each of `samples` equal parts of a ray's way through
    the unit sphere.

        delta = (far - near) / samples;   z_i = near + delta (i + u_i),
            u_i drawn from [0, 1), or 1/2 without a generator

    A sample stands for the whole of its part, wherever in it it falls, so that the parts add up to
    the way. By hand: near 2, far 4 and 4 samples give delta 0.5 and the middles 2.25, 2.75, 3.25,
    3.75.
    background: a number, (3,) or (N, 3). lights: a lamp a ray. chunk: ask the field about so many
    points at a time, and once more for their gradient: less memory, more time.
    Raises ValueError for fewer than one sample or point.
    """
    delta = ((lines.far - lines.near) / at_least("samples", samples))[:, None]
    z = torch.addcmul(lines.near[:, None], delta, _places(delta, samples, generator))
    points = torch.addcmul(lines.origins[:, None], z[..., None], lines.directions[:, None])
    asked = points.reshape(-1, 3)
    kept = None if occupancy is None else occupancy(asked).nonzero().squeeze(1)
    asked = asked if kept is None else asked.index_select(0, kept)

    def spread(values):  # (..., P) back to all samples (..., N, S), 0 for those that were skipped
        if kept is not None:
            values = values.new_zeros(*values.shape[:-1], z.numel()).index_copy(-1, kept, values)
        return values.reshape(*values.shape[:-1], *z.shape)

    normals = normals or lights is not None
    density, *vectors = _looked(field, normals, asked, chunk)
    colour, *normal = (
        spread(values.T) for values in vectors
    )  # (3, N, S): sums over the last axis are the quickest
    if lights is not None:
        colour = shade(colour, normal[0], points, lights)
    weights = composite(spread(density), delta)
    opacity = weights.sum(1)
    behind = torch.as_tensor(background, dtype=colour.dtype, device=colour.device)
    rgb = (weights * colour).sum(2).T + (1 - opacity)[:, None] * behind
    depth = (weights * z).sum(1) / opacity.clamp(min=1e-6)
    if not normals:
        return Marched(rgb, opacity, depth, None, weights, z, None)
    facing = (normal[0] * lines.directions.T[..., None]).sum(0)
    return Marched(
        rgb, opacity, depth, F.normalize((weights * normal[0]).sum(2).T, dim=1), weights, z, facing
    )


def _places(delta: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """Where in a ray's way its samples are, in parts, i + u_i: (N, S), or (S,) without u_i."""
    part = torch.arange(samples, dtype=delta.dtype, device=delta.device)
    if generator is None:
        return part + 0.5
    u = torch.rand(
        len(delta), samples, generator=generator, dtype=delta.dtype, device=generator.device
    )
    return part + u.to(delta.device)


def _looked(field: Field, normals: bool, points: Tensor, chunk: int | None) -> Sequence[Tensor]:
    """What a field says of points, `chunk` of them at a time; their gradient then works it out
    again, so that the memory is a chunk's.
    """
    look = field.with_normals if normals else field
    if chunk is None or len(points) <= at_least("chunk", chunk):
        return look(points)

    def table(part):
        density, *vectors = look(part)
        return torch.cat([density[:, None], *vectors], dim=1)

    parameters = list(field.parameters())
    parts = [through(table, part, parameters, again=True) for part in points.split(chunk)]
    density, *vectors = torch.cat(parts).split([1, 3, 3] if normals else [1, 3], dim=1)
    return density[:, 0], *vectors


def transmittance(density: Tensor, delta: Tensor) -> Tensor:
    """The share of light that comes through to each sample from the camera: T (N, S), for density
    (N, S).

        T_i = exp(-sum_{j<i} density_j delta_j)

    By hand: density (1, 2, 3) and delta ln 2 take off 1, 2 and 3 halvings, so T = (1, 1/2, 1/8).
    delta: length of a sample's part of the ray, (N, 1) or (N, S). Source: arXiv 2003.08934, eq. 3.
    """
    thickness = density * delta
    return (thickness - thickness.cumsum(1)).exp()


def composite(density: Tensor, delta: Tensor) -> Tensor:
    """Each sample's weight in its pixel (N, S): the light that comes through to it times the share
    that it stops.

        weights_i = T_i (1 - exp(-density_i delta_i))

    By hand: three samples of density 1 and delta ln 2 each stop half of what reaches them, T = (1,
    1/2, 1/4): weights (1/2, 1/4, 1/8), opacity 7/8. Red, green and blue samples in this order
    before white (1, 1, 1) then give rgb = (1/2, 1/4, 1/8) + 1/8 = (5/8, 3/8, 1/4). Source: arXiv
    2003.08934, eq. 3.
    """
    return transmittance(density, delta) * -torch.expm1(-density * delta)
