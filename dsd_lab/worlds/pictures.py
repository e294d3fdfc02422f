"""A picture world: pictures sorted under prompts, from the package or from a folder of your own."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from .prompts import World

SMALLEST, LARGEST = 8, 512  # pixels per side


class Source(NamedTuple):
    """Where one picture comes from."""

    set: str
    name: str
    licence: str


@dataclass(frozen=True, eq=False, repr=False)
class PictureWorld(World):
    """Pictures, the prompt each one shows, and whom to credit.

    `pixels` is uint8 (N, 3, H, W), `label` is int64 (N,) and points into `prompts`, `sources` has N
    entries. `aliases` maps other wordings to prompts; `credit` is one line to print beside
    pictures.
    """

    name: str
    prompts: tuple[str, ...]
    pixels: torch.Tensor
    label: torch.Tensor
    sources: tuple[Source, ...]
    aliases: dict[str, str] = field(default_factory=dict)
    credit: str = ""

    def __post_init__(self):
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4 or self.pixels.shape[1] != 3:
            got = f"{self.pixels.dtype} {tuple(self.pixels.shape)}"
            raise ValueError(f"pixels must be uint8 (N, 3, H, W), got {got}")
        if not len(self.pixels) == len(self.label) == len(self.sources):
            raise ValueError(
                f"pixels, label and sources must be equally many, "
                f"got {len(self.pixels)}, {len(self.label)} and {len(self.sources)}"
            )

    def __len__(self):
        return len(self.pixels)

    def __repr__(self):
        height, width = self.pixels.shape[-2:]
        counts = f"{len(self)} pictures of {height}x{width}, {len(self.prompts)} prompts"
        return f"PictureWorld({self.name!r}: {counts})"

    def images(self, prompt: str | None = None) -> torch.Tensor:
        """The pictures of a prompt, or all of them: float32 (n, 3, H, W) in [0, 1]."""
        pixels = self.pixels if prompt is None else self.pixels[self.index(prompt)]
        return pixels.float() / 255

    def index(self, prompt: str) -> torch.Tensor:
        """Positions of a prompt's pictures: int64 (n,)."""
        return (self.label == self.prompts.index(self.resolve(prompt))).nonzero().flatten()

    def resized(self, size: int) -> "PictureWorld":
        """The same world with pictures of size x size, from 8 to the present size; else ValueError.

        Each new pixel is the mean of the block it covers where the sizes divide, else antialiased
        bilinear.
        """
        now = self.pixels.shape[-1]
        if size == now:
            return self
        check_size(size, now)
        how = {"mode": "bilinear", "antialias": True} if now % size else {"mode": "area"}
        pixels = torch.nn.functional.interpolate(self.pixels.float(), size=(size, size), **how)
        return replace(self, pixels=pixels.round().clamp(0, 255).byte())


def check_size(size, largest):
    """Raise ValueError unless `size` is a whole number of pixels from 8 to `largest`."""
    if not isinstance(size, int) or isinstance(size, bool) or not SMALLEST <= size <= largest:
        nearest = largest if isinstance(size, int) and size > largest else SMALLEST
        allowed = f"a whole number from {SMALLEST} to {largest}"
        raise ValueError(f"size must be {allowed}, got {size!r}; try {nearest}")
