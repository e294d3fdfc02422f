"""Pictures of toys: rays are marched to the surface by its distance, and coloured under a light
that stays in place.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding, max_pool2d, normalize

from ...cameras import Camera, check_cameras, rays
from ...threads import one_thread
from .toys import Toys

LIGHT = normalize(
    torch.tensor([0.45, 0.75, 0.55]), dim=0
)  # towards the light; it stays where it is when a camera moves


class Pictures(NamedTuple):
    """What cameras see of toys: (N, V, channels, size, size) each."""

    rgb: Tensor  # in [0, 1], on white
    alpha: Tensor  # the share of the pixel that the toy covers
    depth: Tensor  # mean distance from the camera to what is covered, 0 where nothing is


@one_thread()
@torch.no_grad()
def render(toys: Toys, cameras: Sequence[Camera], size: int = 64) -> Pictures:
    """Pictures of every toy from every camera, size x size: one ray a pixel, and four where
    neighbours differ.
    """
    cameras = check_cameras(cameras)
    rgb = torch.ones(len(toys), len(cameras), 3, size, size)
    alpha, depth = torch.zeros(2, len(toys), len(cameras), 1, size, size)
    for kind in sorted(set(toys.kinds)):  # together, as toys of a kind use like shapes
        which = [i for i, own in enumerate(toys.kinds) if own == kind]
        for index in torch.tensor(which).split(4):
            rgb[index], alpha[index], depth[index] = _pictures(toys.subset(index), cameras, size)
    return Pictures(rgb, alpha, depth)


def _pictures(toys, cameras, size):
    """The fields of Pictures, for toys that are few enough to be rendered at once."""
    shape = (len(toys), len(cameras), size, size)
    ray, t = _cones(toys, cameras, size)
    picture = torch.zeros(
        len(toys), len(cameras) * size * size + 1, 5
    )  # the last is for rays that are not there
    _put(picture, ray, _seen(toys, cameras, size, ray, t))

    flat = picture[:, :-1].reshape(-1, size, size, 5).movedim(-1, 1)
    flat = torch.cat([flat[:, :3] - flat[:, 4:], flat[:, 4:]], dim=1)
    differs = (max_pool2d(flat, 3, 1, 1) + max_pool2d(-flat, 3, 1, 1)).amax(1) > 0.2
    ray, t = _keep(differs.reshape(len(toys), -1).gather(1, ray.clamp(min=0)) & (ray >= 0), ray, t)
    four = _seen(toys, cameras, 2 * size, _split(ray, size), t.repeat(1, 4))
    _put(picture, ray, four.reshape(len(toys), 4, -1, 5).mean(1))

    colour, depth, alpha = picture[:, :-1].reshape(*shape, 5).movedim(-1, 2).split((3, 1, 1), dim=2)
    return colour + 1 - alpha, alpha, depth / alpha.clamp(min=0.1)


def _seen(toys, cameras, size, ray, t):
    """What rays (N, P) meet from distances t on: colour, distance and 1, or zeros for nothing: (N,
    P, 5).
    """
    seen, met = (torch.zeros(len(ray), ray.shape[1] + 1, channels) for channels in (5, 1))
    place = torch.arange(ray.shape[1]).expand_as(ray).where(ray >= 0, -1)
    now, now_t, now_place = ray, t, place
    for steps in (
        3,
        2,
        3,
        4,
        6,
        10,
        20,
        40,
    ):  # rays that have met something, or nothing, leave between rounds
        now_t, busy = _march(toys, _lines(cameras, size, now), now_t, 0.0, steps)
        _put(met, now_place, now_t[..., None])
        now, now_t, now_place = _keep(busy & (now >= 0), now, now_t, now_place.where(now >= 0, -1))
    _put(
        met, now_place.where(now >= 0, -1), torch.full((*now.shape, 1), torch.inf)
    )  # they graze it
    met = met[:, :-1, 0]
    ray, t, place = _keep((ray >= 0) & (met < _lines(cameras, size, ray).far), ray, met, place)
    lines = _lines(cameras, size, ray)
    t = t + toys.sdf(lines.origin + t[..., None] * lines.direction)  # the last little bit
    points = lines.origin + t[..., None] * lines.direction
    looks = torch.cat([_shaded(toys, points), t[..., None], torch.ones_like(t)[..., None]], dim=-1)
    _put(seen, place.where(ray >= 0, -1), looks)
    return seen[:, :-1]


def _shaded(toys, points):
    """Colour times light at points on the surface: some from everywhere, more on what faces LIGHT,
    less in corners.
    """
    slope = (
        toys.sdf(points + 0.05 * LIGHT) / 0.05
    )  # the cosine between the surface's normal and the light
    room = toys.sdf(points + 0.2 * LIGHT) / 0.2  # less than that where something else is near
    slope, room = (0.5 + 0.5 * x.clamp(-1, 1) for x in (slope, room))
    return (toys.colour(points) * (0.42 + 0.46 * slope + 0.22 * room)[..., None]).clamp(max=1)


def _cones(toys, cameras, size):
    """The pixels (N, P) whose cone of view comes near a toy, -1 where a toy has fewer, and from
    what distance on.

    Cones start wide, one for a block of pixels. A cone goes on while the toy is farther away than
    the cone is wide; then it is split into four, or dropped once it has left the sphere.
    """
    across = next(size // block for block in (16, 8, 4, 2, 1) if size % block == 0)
    ray = torch.arange(len(cameras) * across**2).expand(len(toys), -1)
    t = _lines(cameras, across, ray).near
    while True:
        lines = _lines(cameras, across, ray)
        t, _ = _march(toys, lines, t, 0.71, 4)  # half a pixel's diagonal
        ray, t = _keep((ray >= 0) & (t < lines.far), ray, t)
        if across == size:
            return ray, t
        ray, t, across = _split(ray, across), t.repeat(1, 4), 2 * across


class Lines(NamedTuple):
    """Rays, and where their cones enter and leave the sphere of the toys."""

    origin: Tensor  # (..., 3)
    direction: Tensor  # (..., 3)
    near: Tensor  # (...)
    far: Tensor  # (...), equal to near for a cone that misses the sphere
    pixel: Tensor  # (...) width of a pixel at distance 1


def _lines(cameras, size, ray):
    """The rays at positions `ray` (N, P) among all rays of the cameras' pictures."""
    table = embedding(ray.clamp(min=0), _all_lines(cameras, size))
    return Lines(table[..., :3], table[..., 3:6], *table[..., 6:].unbind(-1))


@lru_cache(maxsize=16)
def _all_lines(cameras, size):
    """The fields of Lines for every ray, side by side: (V * size * size, 9)."""
    origin, direction = (part.reshape(-1, 3) for part in rays(cameras, size))
    pixel = torch.tensor([2 * math.tan(math.radians(camera.fov / 2)) / size for camera in cameras])
    pixel = pixel.repeat_interleave(size * size)
    middle = -(origin * direction).sum(1)
    beside = (origin.square().sum(1) - middle**2).clamp(min=0)
    half = ((1 + 0.71 * pixel * middle.clamp(min=0)) ** 2 - beside).clamp(min=0).sqrt()
    near, far = (middle - half).clamp(min=0), (middle + half).clamp(min=0)
    return torch.cat([origin, direction, torch.stack([near, far, pixel], dim=1)], dim=1)


def _march(toys, lines, t, thick, steps):
    """Move cones, `thick` pixels in radius, on until a toy is as near as they are wide: distances
    (N, P), and which of them are not yet done: still in the sphere, and a twentieth of a pixel or
    more to go.
    """
    origin, direction = lines.origin.mT.contiguous(), lines.direction.mT.contiguous()
    for _ in range(steps):
        gap = toys.sdf(torch.addcmul(origin, direction, t[:, None]).mT) - thick * lines.pixel * t
        t = t + gap.clamp(min=0)
    return t, (gap > 0.05 * lines.pixel * t) & (t < lines.far)


def _split(ray, across):
    """The four rays inside each ray of pictures `across` wide, one after the other: (N, 4 P)."""
    view, row, column = ray // across**2, ray // across % across, ray % across
    corner = 4 * across**2 * view + 4 * across * row + 2 * column
    quarters = torch.cat([corner, corner + 1, corner + 2 * across, corner + 2 * across + 1], dim=1)
    return quarters.where(ray.repeat(1, 4) >= 0, -1)


def _keep(mask, ray, *others):
    """The rays (N, P) under the mask and what belongs to them, moved to the front; rays that are
    not there are -1.
    """
    row, column = mask.nonzero(as_tuple=True)
    count = mask.sum(1)
    place = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
    at = torch.zeros(len(mask), int(count.amax()), dtype=torch.int64)
    at[row, place] = column
    real = torch.arange(at.shape[1]) < count[:, None]
    return ray.gather(1, at).where(real, -1), *(other.gather(1, at) for other in others)


def _put(picture, place, values):
    """Write values (N, P, C) to places (N, P) of the picture (N, R + 1, C); a place of -1 is the
    last.
    """
    picture.scatter_(1, (place % picture.shape[1])[..., None].expand_as(values), values)
