"""Cameras that look at the origin: where they stand, their rays, and fixed and random sets of them.

Angles are in degrees and y is up. Azimuth 0 is the front, a camera on +z with +x to its right;
azimuth 90 is a camera on +x. Pictures are square: row 0 on top, pixel centres at +0.5. At distance
3 with a field of view of 40 the whole unit sphere is in the picture (it spans 38.9 degrees).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Real

import torch
from torch import Tensor

from .checks import at_least


@dataclass(frozen=True)
class Camera:
    """One pinhole camera at `distance` from the origin, with a field of view of `fov` degrees from
    top to bottom.

    `azimuth` is wrapped into (-180, 180]. Raises TypeError for anything but numbers, ValueError for
    an elevation outside -90..90, a distance that is not positive, a field of view outside 0..180,
    or a number that is not finite.
    """

    azimuth: float = 0.0
    elevation: float = 20.0
    distance: float = 3.0
    fov: float = 40.0

    def __post_init__(self):
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value!r}")
            object.__setattr__(self, name, float(value))
        if not -90 <= self.elevation <= 90:
            raise ValueError(f"elevation must be from -90 to 90 degrees, got {self.elevation:g}")
        if self.distance <= 0:
            raise ValueError(f"distance must be greater than 0, got {self.distance:g}")
        if not 0 < self.fov < 180:
            raise ValueError(f"fov must be between 0 and 180 degrees, got {self.fov:g}")
        if not -180 < self.azimuth <= 180:
            object.__setattr__(self, "azimuth", 180 - (180 - self.azimuth) % 360)

    @property
    def pose(self) -> Tensor:
        """Camera to world, float64 (4, 4): columns right, up, backward and position."""
        az, el = math.radians(self.azimuth), math.radians(self.elevation)
        right = (math.cos(az), 0.0, -math.sin(az))
        # holds at the poles too
        up = (-math.sin(el) * math.sin(az), math.cos(el), -math.sin(el) * math.cos(az))
        back = (math.cos(el) * math.sin(az), math.sin(el), math.cos(el) * math.cos(az))
        columns = torch.tensor(
            [right, up, back, [self.distance * x for x in back]], dtype=torch.float64
        ).T
        return torch.cat([columns, torch.tensor([[0, 0, 0, 1.0]], dtype=torch.float64)])

    @property
    def position(self) -> Tensor:
        """Where the camera stands: float64 (3,)."""
        return self.pose[:3, 3]


def check_cameras(cameras: Sequence[Camera]) -> tuple[Camera, ...]:
    """`cameras` as a tuple. Raises TypeError unless it is a sequence of Cameras, ValueError if it
    is empty.
    """
    if isinstance(cameras, Camera) or not hasattr(cameras, "__iter__"):
        raise TypeError(f"cameras must be a sequence such as [Camera(azimuth=0)], got {cameras!r}")
    cameras = tuple(cameras)
    if not cameras:
        raise ValueError("cameras is empty; give at least one, such as [Camera()]")
    for camera in cameras:
        if not isinstance(camera, Camera):
            raise TypeError(f"every camera must be a Camera, got {camera!r}")
    return cameras


def rays(cameras: Sequence[Camera], size: int, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    """The ray through each pixel centre of size x size: origins and unit directions, each (V, size,
    size, 3).

    Raises ValueError unless `size` is an int of at least 1.
    """
    at_least("size", size)
    cameras = check_cameras(cameras)
    pose = torch.stack([camera.pose for camera in cameras])  # (V, 4, 4)
    reach = _half_width(cameras)[:, None, None]
    line = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    x, y = torch.broadcast_tensors(line * reach, -line[:, None] * reach)
    # (V, size, size, 3), looking along -backward
    local = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
    directions = torch.einsum("vij,vrcj->vrci", pose[:, :3, :3], local)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    origins = pose[:, None, None, :3, 3].expand_as(directions)
    return origins.to(dtype), directions.to(dtype)


def project(points: Tensor, camera: Camera, size: int) -> Tensor:
    """Where points (..., 3) land in a size x size picture: (..., 2), column then row, in pixels.

    A point on the ray of pixel (row r, column c) lands on (c + 0.5, r + 0.5). Points that are not
    in front of the camera are NaN. Raises ValueError unless `size` is an int of at least 1 and the
    points have three coordinates.
    """
    at_least("size", size)
    if points.ndim == 0 or points.shape[-1] != 3:
        raise ValueError(f"points must be (..., 3), got {tuple(points.shape)}")
    pose = camera.pose
    local = (points.cpu().double() - pose[:3, 3]) @ pose[:3, :3]  # not every device has float64
    depth = -local[..., 2:]
    plane = local[..., :2] / depth.where(depth > 0, torch.nan) / _half_width([camera])
    flip = torch.tensor([1.0, -1.0], dtype=torch.float64)
    return ((plane * flip + 1) * size / 2).to(points)


def orbit(views: int, elevation=20.0, distance=3.0, fov=40.0, start=0.0) -> tuple[Camera, ...]:
    """`views` cameras at even steps of azimuth around the origin, from `start`. ValueError for
    fewer than one.
    """
    turns = (start + 360 * i / views for i in range(at_least("views", views)))
    return tuple(Camera(turn, elevation, distance, fov) for turn in turns)


def bank(elevations=(0.0, 20.0, 40.0), start=0.0) -> tuple[Camera, ...]:
    """A fixed set of cameras: one orbit of eight views at each elevation, in the order given."""
    return tuple(camera for elevation in elevations for camera in orbit(8, elevation, start=start))


BANK = bank()
# for measuring: between the cameras of BANK, never optimised
HELD_OUT = bank((10.0, 30.0), 22.5)


def sample_cameras(
    count: int,
    generator: torch.Generator,
    elevation=(-10.0, 45.0),
    distance=(3.0, 3.0),
    fov=(40.0, 40.0),
    azimuth=(-180.0, 180.0),
) -> tuple[Camera, ...]:
    """`count` cameras with each property drawn evenly from its (low, high), four draws a camera
    from `generator`.

    Raises ValueError for a negative count or a range whose low end is above its high end.
    """
    at_least("count", count, 0)
    ranges = {"azimuth": azimuth, "elevation": elevation, "distance": distance, "fov": fov}
    for name, (low, high) in ranges.items():
        if low > high:
            raise ValueError(
                f"{name} must be (low, high) with low <= high, got ({low:g}, {high:g})"
            )
    low, high = torch.tensor(list(ranges.values()), dtype=torch.float64).T
    draw = torch.rand(
        count, 4, generator=generator, dtype=torch.float64, device=generator.device
    ).cpu()
    return tuple(Camera(*row) for row in (low + draw * (high - low)).tolist())


@dataclass(frozen=True)
class CameraRanges:
    """Cameras drawn afresh whenever they are needed, each property evenly from its (low, high).

    Raises what `sample_cameras` raises, and `Camera`.
    """

    elevation: tuple[float, float] = (-10.0, 45.0)
    distance: tuple[float, float] = (3.0, 3.0)
    fov: tuple[float, float] = (40.0, 40.0)
    azimuth: tuple[float, float] = (-180.0, 180.0)

    def __post_init__(self):
        self.draw(1, torch.Generator())
        for end in (0, 1):
            Camera(self.azimuth[end], self.elevation[end], self.distance[end], self.fov[end])

    def draw(self, count: int, generator: torch.Generator) -> tuple[Camera, ...]:
        """`count` of them."""
        return sample_cameras(
            count, generator, self.elevation, self.distance, self.fov, self.azimuth
        )


def nearest(camera: Camera, cameras: Sequence[Camera]) -> int:
    """The position in `cameras` of the one that looks from the nearest direction; the first of
    equals.
    """
    directions = torch.stack([other.pose[:3, 2] for other in check_cameras(cameras)])
    return int((directions @ camera.pose[:3, 2]).argmax())


def _half_width(cameras):
    """Half the width of each picture, one unit in front of its camera: (V,)."""
    return torch.tensor(
        [math.tan(math.radians(camera.fov) / 2) for camera in cameras], dtype=torch.float64
    )
