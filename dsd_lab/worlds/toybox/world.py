"""The world `toybox`: small procedural toys of every kind, seen from a bank of cameras."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from ...cameras import BANK, Camera, check_cameras
from ...checks import at_least
from ..prompts import World
from .builder import COLOURS
from .toys import KINDS, Toys, make_toys, with_article
from .views import SIDE, cached_views, shipped_views, smaller

SIZES = (16, 32, 64)  # pixels per side
CREDIT = "Toys: dsd_lab's own procedural renders (Apache-2.0)."
ALIASES = {
    "bear": "a teddy bear",
    "boat": "a sailboat",
    "burger": "a hamburger",
    "cup": "a mug",
    "rubber duck": "a duck",
    "spaceship": "a rocket",
    "teddy": "a teddy bear",
    "toadstool": "a mushroom",
}
SHIPPED = (16, BANK)  # toys of a kind and cameras of the pictures that come with the package


@dataclass(frozen=True, eq=False, repr=False)
class ToyboxWorld(World):
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
        height, width = self.views.shape[-2:]
        views = f"{len(self.cameras)} views of {height}x{width}"
        return f"ToyboxWorld({len(self)} toys, {views}, {len(self.prompts)} prompts)"

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

    Of 16 toys of a kind, ten are singles and six are two groups of three twins. Their pictures from
    BANK come with the package. Others are rendered once, about a minute for as many, and kept in
    the user's cache folder, or in the folder that DSD_LAB_CACHE names. The world is shared between
    callers: do not write into its tensors.
    Raises ValueError for another size or fewer than one toy.
    """
    if size not in SIZES or isinstance(size, bool):
        nearest = (
            min(SIZES, key=lambda s: abs(s - size)) if isinstance(size, int | float) else SIZES[-1]
        )
        raise ValueError(
            f"size must be one of {', '.join(map(str, SIZES))}, got {size!r}; try {nearest}"
        )
    at_least("per_kind", per_kind)
    cameras = check_cameras(cameras)
    toys, seeds = usual_toys(per_kind)
    shipped = (per_kind, cameras) == SHIPPED
    views = shipped_views() if shipped else cached_views(toys, cameras)
    return resized(_world(toys, seeds, cameras, views), size)


@lru_cache(maxsize=4)
def toy_shop(per_kind: int = 32, first: int = 0) -> ToyboxWorld:
    """Toys of every kind, of the seeds from `first` on, without twins and without pictures: no
    camera, nothing rendered.

    For networks that know any camera, and for whoever renders the toys from cameras of their own.
    Takes a second or two.
    """
    seeds = list(range(first, first + per_kind))
    toys = make_toys([kind for kind in KINDS for _ in seeds], seeds * len(KINDS))
    return _world(toys, seeds, (), torch.empty(len(toys), 0, 3, SIDE, SIDE, dtype=torch.uint8))


def usual_toys(per_kind: int) -> tuple[Toys, list[int]]:
    """The toys of a `toybox`, `per_kind` of every kind, and the seeds of a kind's."""
    seeds, backs = _plan(per_kind)
    kinds = [kind for kind in KINDS for _ in seeds]
    return make_toys(kinds, seeds * len(KINDS), backs * len(KINDS)), seeds


def _plan(per_kind):
    """Seeds and backs of a kind's toys: singles first, then for every eight toys a group of three
    twins.
    """
    groups = per_kind // 8
    singles = per_kind - 3 * groups
    seeds = [*range(singles), *(singles + i // 3 for i in range(3 * groups))]
    return seeds, [None] * singles + [0, 1, 2] * groups


def held_out_pairs() -> list[tuple[str, str]]:
    """(colour, kind) pairs, one a kind, that trainings on toys leave out: they test composition."""
    colours = list(COLOURS)
    return [(colours[i % len(colours)], kind) for i, kind in enumerate(KINDS)]


def without_held_out(toys: Toys) -> Toys:
    """The toys that trainings see: without `held_out_pairs`."""
    held_out, pairs = held_out_pairs(), zip(toys.colours, toys.kinds, strict=True)
    return toys.subset([i for i, pair in enumerate(pairs) if pair not in held_out])


def colour_and_kind(prompt: str) -> tuple[str, str]:
    """The words of a toy's prompt: "a red teddy bear" -> ("red", "teddy bear"), "a chair" -> ("",
    "chair").
    """
    first, _, rest = prompt.split(" ", 1)[1].partition(" ")
    return (first, rest) if first in COLOURS else ("", f"{first} {rest}".strip())


def _world(toys, seeds, cameras, views):
    """The world of the toys of every kind with these seeds, under the prompts that they show."""
    captions = set(toys.captions)
    prompts = [with_article(kind) for kind in KINDS]
    prompts += [
        prompt
        for kind in KINDS
        for colour in COLOURS
        if (prompt := with_article(f"{colour} {kind}")) in captions
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
    if now % at_least("size", size):
        raise ValueError(
            f"the pictures are {now} x {now}; a smaller size must divide that, got {size!r}"
        )
    return replace(world, views=smaller(world.views, size))
