"""A picture world: pictures sorted under prompts, from the package or from a folder of your own."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from .prompts import resolve

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
SMALLEST, LARGEST = 8, 512  # pixels per side


class Source(NamedTuple):
    """Where one picture comes from."""

    set: str
    name: str
    licence: str


@dataclass(frozen=True, eq=False, repr=False)
class PictureWorld:
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

    def resolve(self, prompt: str) -> str:
        """The prompt meant by `prompt`, see `prompts.resolve`."""
        return resolve(prompt, self.prompts, self.aliases)

    def resized(self, size: int) -> "PictureWorld":
        """The same world with pictures of size x size, from 8 to the present size; else ValueError.

        Each new pixel is the mean of the block it covers where the sizes divide, else antialiased
        bilinear.
        """
        now = self.pixels.shape[-1]
        if size == now:
            return self
        _check_size(size, now)
        how = {"mode": "bilinear", "antialias": True} if now % size else {"mode": "area"}
        pixels = torch.nn.functional.interpolate(self.pixels.float(), size=(size, size), **how)
        return replace(self, pixels=pixels.round().clamp(0, 255).byte())


def folder(path, size: int = 64) -> PictureWorld:
    """Your own pictures as a world: one sub-folder per label, whose name is the prompt.

    Every picture is turned upright, put on white, padded to a square (never cropped) and resized to
    size x size. Raises ValueError, saying which file or folder and what is allowed, if that cannot
    be done.
    """
    _check_size(size, LARGEST)
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root} {what}; give a folder with one sub-folder of pictures per label")
    labels = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not labels:
        raise ValueError(
            f"{root} has no sub-folders; give each label a sub-folder with its pictures"
        )

    files = {label: sorted(p for p in label.iterdir() if _is_picture(p)) for label in labels}
    for label, pictures in files.items():
        if not pictures:
            allowed = ", ".join(SUFFIXES)
            raise ValueError(
                f"{label} has no pictures ({allowed}); put some in, or remove the folder"
            )
    if len(labels) == 1:
        raise ValueError(
            f'{root} has one label, "{labels[0].name}"; it needs at least two labels: with one, '
            "conditional and unconditional predictions are the same, so guidance does nothing"
        )

    rows = [(i, file) for i, label in enumerate(labels) for file in files[label]]
    pixels = np.stack([_open(file, size) for _, file in rows])
    return PictureWorld(
        name=root.resolve().name,
        prompts=tuple(label.name for label in labels),
        pixels=torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        label=torch.tensor([i for i, _ in rows]),
        sources=tuple(Source(file.parent.name, file.name, "not stated") for _, file in rows),
        credit=f"Pictures: folder {root.resolve().name}.",
    )


def _check_size(size, largest):
    """Raise ValueError unless `size` is a whole number of pixels from 8 to `largest`."""
    if not isinstance(size, int) or isinstance(size, bool) or not SMALLEST <= size <= largest:
        nearest = largest if isinstance(size, int) and size > largest else SMALLEST
        allowed = f"a whole number from {SMALLEST} to {largest}"
        raise ValueError(f"size must be {allowed}, got {size!r}; try {nearest}")


def _is_picture(path):
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _open(path, size):
    """Read one picture file: uint8 (size, size, 3)."""
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGBA")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"cannot read the picture {path} ({error}); replace or remove it"
        ) from error
    side = max(picture.size)
    page = Image.new("RGBA", (side, side), "white")
    page.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.array(page.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))
