"""What a mini learns from: pictures with captions, and views of objects."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from ..cameras import Camera, orbit, sample_cameras
from ..draws import generator_of
from ..threads import one_thread
from ..worlds import PictureWorld, Toys, make_toys, render, toy_shop
from ..worlds.toybox.toys import with_article
from ..worlds.toybox.world import CREDIT, KINDS, without_held_out

# for negative prompts: every caption, the empty one too, is also seen with this word, on blurred
# pictures
BLURRY = "blurry"
# from where most pictures that are given are taken: half of those that training gives
GIVEN = Camera(0, 20)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """N objects with captions, in V views each; a set of pictures has one view an object.

    pixels: uint8 (N, V, 3, S, S). captions: for each object the texts that say what it is, of which
    one is drawn each time. cameras: those of each object's views, or None. credit: whose pictures.
    Raises ValueError for another shape, and for an object without a caption or its cameras.
    """

    name: str
    pixels: Tensor
    captions: Sequence[tuple[str, ...]]
    cameras: Sequence[tuple[Camera, ...]] | None = None
    credit: str = ""

    def __post_init__(self):
        shape = tuple(self.pixels.shape)
        square = len(shape) == 5 and shape[2] == 3 and shape[3] == shape[4] and shape[3] % 16 == 0
        if not square or self.pixels.dtype != torch.uint8:
            raise ValueError(
                "pixels must be uint8 (N, V, 3, S, S) with S a multiple of 16, "
                f"got {self.pixels.dtype} {shape}"
            )
        if len(self.captions) != shape[0] or not all(self.captions):
            raise ValueError(
                f"{shape[0]} objects need at least one caption each, "
                f"got {len(self.captions)} entries"
            )
        if self.cameras is not None and [*map(len, self.cameras)] != [shape[1]] * shape[0]:
            raise ValueError(f"{shape[0]} objects in {shape[1]} views need a camera for each view")

    @classmethod
    def of(cls, world: PictureWorld) -> TrainingSet:
        """The pictures of a world, each under its prompt."""
        captions = [(world.prompts[i],) for i in world.label.tolist()]
        return cls(world.name, world.pixels[:, None], captions, credit=world.credit)

    @classmethod
    def toys(
        cls, per_kind: int = 32, views: int = 24, seed: int = 0, together: int = 1
    ) -> TrainingSet:
        """Procedural toys at 64 px from random cameras, without `held_out_pairs`.

        per_kind: toys of each kind before those are taken out. together: so many views are of one
        ring, evenly around. Takes about 10 ms a picture.
        """
        toys = without_held_out(toy_shop(per_kind).toys)
        name = "toybox" if together == 1 else "toybox-multi-view"
        return cls._rendered(name, toys, views, generator_of(seed, "toys"), together=together)

    @classmethod
    def toy_pairs(
        cls, singles: int = 96, groups: int = 16, views: int = 8, seed: int = 0
    ) -> TrainingSet:
        """The `toys_to_turn` at 64 px from `GIVEN`, the first view, and from random cameras. Takes
        about 10 ms a picture.
        """
        toys, generator = toys_to_turn(singles, groups), generator_of(seed, "pairs")
        return cls._rendered("toybox-novel-view", toys, views, generator, (GIVEN,))

    @classmethod
    def _rendered(
        cls,
        name: str,
        toys: Toys,
        views: int,
        generator: torch.Generator,
        first: tuple[Camera, ...] = (),
        together: int = 1,
    ) -> TrainingSet:
        """Toys as "a chair" and as "a red chair", from `first` and from random rings of cameras."""
        pixels, cameras = [], []
        for part in torch.arange(len(toys)).split(8):  # they share cameras: the renderer's batch
            starts = sample_cameras(views // together, generator)
            rings = (orbit(together, c.elevation, c.distance, c.fov, c.azimuth) for c in starts)
            chosen = (*first, *chain.from_iterable(rings))
            with one_thread():
                pixels.append((render(toys.subset(part), chosen).rgb * 255).round().byte())
            cameras += [chosen] * len(part)
        captions = [*zip(map(with_article, toys.kinds), toys.captions, strict=True)]
        return cls(name, torch.cat(pixels), captions, cameras, CREDIT)

    @property
    def pictures(self) -> Tensor:
        """All views of all objects, uint8 (N V, 3, S, S)."""
        return self.pixels.flatten(0, 1)

    @property
    def words(self) -> list[str]:
        """Every word of the captions in small letters, and `BLURRY`: the vocabulary, in
        alphabetical order.
        """
        words = {word for texts in self.captions for text in texts for word in text.lower().split()}
        return sorted(words | {BLURRY})

    def identity(self) -> dict[str, str]:
        """What tells this data from any other: its name, and a digest of each part."""
        parts = {
            "pixels": self.pixels.numpy().tobytes(),
            "captions": repr(self.captions).encode(),
            "cameras": repr(self.cameras).encode(),
        }
        digests = {name: hashlib.sha256(part).hexdigest()[:16] for name, part in parts.items()}
        return {"data": self.name, **digests}


def toys_to_turn(singles: int = 96, groups: int = 16, kinds: Sequence[str] | None = None) -> Toys:
    """Of each kind, all unless given, singles and threes that share a front.

    The singles have the seeds from 0 on, the groups those from 10 on, so that the world's own toys
    are among them.
    """
    seeds = [*range(singles), *(10 + i // 3 for i in range(3 * groups))]
    backs, kinds = [None] * singles + [0, 1, 2] * groups, kinds or KINDS
    each = [kind for kind in kinds for _ in seeds]
    return make_toys(each, seeds * len(kinds), backs * len(kinds))
