"""The world `toybox`: small procedural toys, rendered once from a bank of cameras and kept in a
cache.
"""

import hashlib
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from ...cameras import BANK, Camera, check_cameras
from ..pictures import PictureWorld
from .builder import COLOURS
from .render import Pictures, render
from .toys import KINDS, Toys, make_toys, with_article

__all__ = [
    "COLOURS",
    "KINDS",
    "Pictures",
    "ToyboxWorld",
    "Toys",
    "make_toys",
    "render",
    "toy_shop",
    "toybox",
]

SIZES = (16, 32, 64)  # pixels per side
CREDIT = "Toys: dsd_lab's own procedural renders (Apache-2.0)."
ALIASES = {
    "bear": "a teddy bear", "boat": "a sailboat", "burger": "a hamburger", "cup": "a mug", "rubber duck": "a duck",
    "spaceship": "a rocket", "teddy": "a teddy bear", "toadstool": "a mushroom",
}  # fmt: skip
VERSION = 1  # of the cache file


@dataclass(frozen=True, eq=False, repr=False)
class ToyboxWorld:
    """N toys, their pictures from a bank of cameras, and the prompts that each toy shows.

    `views` is uint8 (N, V, 3, H, W), one for each toy and camera. `kind_label` and `groups` are
    int64 (N,): the toy's place in KINDS, and a number that only twins share, toys that differ in
    nothing but their back.
    """

    prompts: tuple[str, ...]
    toys: Toys
    kind_label: Tensor
    groups: Tensor
    cameras: tuple[Camera, ...]
    views: Tensor
    name: str = "toybox"
    aliases: dict[str, str] = field(default_factory=lambda: dict(ALIASES))
    credit: str = CREDIT

    def __len__(self):
        return len(self.toys)

    def __repr__(self):
        views, (height, width) = len(self.cameras), self.views.shape[-2:]
        return f"ToyboxWorld({len(self)} toys, {views} views of {height}x{width}, {len(self.prompts)} prompts)"

    resolve = PictureWorld.resolve

    def index(self, prompt: str) -> Tensor:
        """Positions of the toys that a prompt describes, "a chair" or "a red chair": int64 (n,)."""
        prompt = self.resolve(prompt)
        pairs = zip(self.toys.kinds, self.toys.captions, strict=True)
        shown = [prompt in (with_article(kind), caption) for kind, caption in pairs]
        return torch.tensor(shown).nonzero().flatten()

    def images(self, prompt: str | None = None, camera_index: int | None = None) -> Tensor:
        """Pictures in [0, 1] of a prompt's toys, or of all: float32 (n, V, 3, H, W), or (n, 3, H,
        W) from one camera.

        Raises ValueError for a camera index that is not one of the V.
        """
        views = self.views if prompt is None else self.views[self.index(prompt)]
        if camera_index is None:
            return views.float() / 255
        if not 0 <= camera_index < len(self.cameras):
            raise ValueError(
                f"camera_index must be from 0 to {len(self.cameras) - 1}, got {camera_index!r}"
            )
        return views[:, camera_index].float() / 255


@lru_cache(maxsize=4)
def toybox(size: int = 64, per_kind: int = 16, cameras: tuple[Camera, ...] = BANK) -> ToyboxWorld:
    """The toys of every kind, seen from `cameras` in pictures of size x size: 16, 32 or 64.

    Of 16 toys of a kind, ten are singles and six are two groups of three twins. The pictures are
    rendered once, which takes about a minute, and kept in the user's cache folder, or in the folder
    that DSD_LAB_CACHE names. The world is shared between callers: do not write into its tensors.
    Raises ValueError for another size or fewer than one toy.
    """
    if size not in SIZES or isinstance(size, bool):
        nearest = (
            min(SIZES, key=lambda s: abs(s - size)) if isinstance(size, int | float) else SIZES[-1]
        )
        raise ValueError(
            f"size must be one of {', '.join(map(str, SIZES))}, got {size!r}; try {nearest}"
        )
    if not isinstance(per_kind, int) or per_kind < 1:
        raise ValueError(f"per_kind must be an int of at least 1, got {per_kind!r}")
    seeds, backs = _plan(per_kind)
    toys = make_toys(
        [kind for kind in KINDS for _ in seeds], seeds * len(KINDS), backs * len(KINDS)
    )
    return resized(_world(toys, seeds, cameras, _cached_views(toys, check_cameras(cameras))), size)


@lru_cache(maxsize=4)
def toy_shop(per_kind: int = 32, first: int = 0) -> ToyboxWorld:
    """Toys of every kind, of the seeds from `first` on, without twins and without pictures: no
    camera, nothing rendered.

    For networks that know any camera, and for whoever renders the toys from cameras of their own.
    Takes a second or two.
    """
    seeds = list(range(first, first + per_kind))
    toys = make_toys([kind for kind in KINDS for _ in seeds], seeds * len(KINDS))
    return _world(toys, seeds, (), torch.empty(len(toys), 0, 3, 64, 64, dtype=torch.uint8))


def _world(toys, seeds, cameras, views):
    """The world of the toys of every kind with these seeds, under the prompts that they show."""
    shown = set(toys.captions)
    prompts = [with_article(kind) for kind in KINDS]
    prompts += [
        p
        for kind in KINDS
        for colour in COLOURS
        if (p := with_article(f"{colour} {kind}")) in shown
    ]
    label = torch.arange(len(KINDS)).repeat_interleave(len(seeds))
    groups = label * (max(seeds) + 1) + torch.tensor(seeds * len(KINDS))
    return ToyboxWorld(tuple(prompts), toys, label, groups, cameras, views)


def resized(world: ToyboxWorld, size: int) -> ToyboxWorld:
    """The world with pictures of another size, which must divide the present one; ValueError if it
    does not.
    """
    now = world.views.shape[-1]
    if size == now:
        return world
    if not isinstance(size, int) or size < 1 or now % size:
        raise ValueError(
            f"the pictures are {now} x {now}; a smaller size must divide that, got {size!r}"
        )
    return replace(
        world, views=torch.cat([_smaller(part, now // size) for part in world.views.split(16)])
    )


def _plan(per_kind):
    """Seeds and backs of a kind's toys: singles first, then for every eight toys a group of three
    twins.
    """
    groups = per_kind // 8
    singles = per_kind - 3 * groups
    seeds = [*range(singles), *(singles + i // 3 for i in range(3 * groups))]
    return seeds, [None] * singles + [0, 1, 2] * groups


def _smaller(views, block):
    """uint8 views with each block x block of pixels made one, their mean."""
    small = avg_pool2d(views.flatten(0, 1).float(), block).round().byte()
    return small.reshape(*views.shape[:3], *small.shape[-2:])


def _digest(toys, cameras):
    """A hash of what the pictures depend on: the toys, the cameras, and every line of the code that
    makes them.
    """
    here = Path(__file__).parent
    files = [here.parents[1] / "cameras.py", *sorted(here.glob("*.py"))]
    parts = [
        repr((toys.kinds, toys.colours, cameras)).encode(),
        *(file.read_bytes() for file in files),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _cached_views(toys, cameras):
    """The toys' pictures at 64 x 64, uint8 (N, V, 3, 64, 64): from the cache, or rendered and put
    there.
    """
    folder = Path(os.environ.get("DSD_LAB_CACHE") or platformdirs.user_cache_dir("dsd_lab"))
    file = folder / f"toybox-v{VERSION}-{_digest(toys, cameras)[:16]}.npz"
    shape = (len(toys), len(cameras), 3, 64, 64)
    try:
        with np.load(file, allow_pickle=False) as content:
            views = content["views"]
        if views.dtype == np.uint8 and views.shape == shape:
            return torch.from_numpy(views)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # missing or damaged: made anew
    views = torch.empty(shape, dtype=torch.uint8)
    with tqdm(
        total=len(toys) * len(cameras), desc="toybox, once", unit=" views", disable=None
    ) as bar:
        for index in torch.arange(len(toys)).split(4):
            views[index] = (render(toys.subset(index), cameras).rgb * 255).round().byte()
            bar.update(len(index) * len(cameras))
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            np.savez_compressed(out, views=views.numpy())
        os.replace(temporary, file)  # at once, so that nobody reads half a file
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return views
