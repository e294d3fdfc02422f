"""The toybox's pictures: those of the usual world come with the package, others are rendered once
and kept in the user's cache.
"""

import hashlib
import io
import os
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import platformdirs
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from ...cameras import Camera
from ...files import expanded, slug, write_whole
from ..shipped import read_shipped
from .render import render
from .toys import KINDS, Toys

DATA = Path(__file__).parents[1] / "toybox_data"
CHECKSUMS = "checksums.sha256"
REBUILD = "python -m dsd_lab.worlds.build.toybox"
SIDE = 64  # pixels of a picture before it is made smaller
VERSION = 2  # of the cache file


def sheet(kind: str) -> Path:
    """The file of a kind's pictures: a row a toy, a column a camera."""
    return DATA / f"{slug(kind)}.webp"


def tiles(content: bytes) -> Tensor:
    """The pictures in a sheet's bytes: uint8 (toys, V, 3, 64, 64)."""
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content))))
    return (
        pixels.unflatten(1, (-1, SIDE)).unflatten(0, (-1, SIDE)).permute(0, 2, 4, 1, 3).contiguous()
    )


def shipped_views() -> Tensor:
    """The pictures of the usual world, 16 toys of every kind from BANK: uint8 (N, V, 3, 64, 64).

    Raises ValueError for a damaged file.
    """
    contents = (read_shipped(sheet(kind), DATA / CHECKSUMS, REBUILD) for kind in KINDS)
    return torch.cat([tiles(content) for content in contents])


def rendered_views(toys: Toys, cameras: tuple[Camera, ...]) -> Tensor:
    """The toys as the cameras see them, uint8 (N, V, 3, 64, 64), under a progress bar."""
    views = torch.empty(len(toys), len(cameras), 3, SIDE, SIDE, dtype=torch.uint8)
    total = len(toys) * len(cameras)
    with tqdm(total=total, desc="toybox, once", unit=" views", disable=None) as bar:
        for index in torch.arange(len(toys)).split(4):
            views[index] = (render(toys.subset(index), cameras).rgb * 255).round().byte()
            bar.update(len(index) * len(cameras))
    return views


def cached_views(toys: Toys, cameras: tuple[Camera, ...]) -> Tensor:
    """`rendered_views`, from the cache if they are in it. Warns if it cannot be written."""
    folder = expanded(os.environ.get("DSD_LAB_CACHE") or platformdirs.user_cache_dir("dsd_lab"))
    file = folder / f"toybox-v{VERSION}-{_digest(toys, cameras)[:16]}.npz"
    try:
        with np.load(file, allow_pickle=False) as content:
            views = torch.from_numpy(content["views"])
        if views.dtype == torch.uint8 and views.shape[:2] == (len(toys), len(cameras)):
            return views
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # missing or damaged: made anew
    views = rendered_views(toys, cameras)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda place: np.savez_compressed(place, views=views.numpy()))
    except OSError as error:
        warnings.warn(
            f"the toybox's pictures are not kept, as {folder} cannot be written ({error}); "
            "DSD_LAB_CACHE may name another folder",
            stacklevel=2,
        )
    return views


def smaller(views: Tensor, size: int) -> Tensor:
    """uint8 views (N, V, 3, H, W) at size x size, which divides H: each pixel is the mean of its
    block.
    """
    block = views.shape[-1] // size

    def part(some: Tensor) -> Tensor:
        means = avg_pool2d(some.flatten(0, 1).float(), block)
        return means.round().byte().unflatten(0, some.shape[:2])

    return torch.cat([part(some) for some in views.split(16)])


def _digest(toys, cameras):
    """A hash of what the pictures depend on: toys, cameras, and the code that makes them."""
    package = Path(__file__).parent
    files = [package.parents[1] / "cameras.py", *sorted(package.glob("*.py"))]
    parts = [repr((toys.kinds, toys.colours, cameras)).encode()]
    parts += [file.read_bytes() for file in files]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
