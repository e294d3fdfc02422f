"""The world `icons`: real drawings of everyday things, by several artists per prompt."""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from .pictures import PictureWorld, Source
from .shipped import read_shipped

DATA = Path(__file__).parent / "icons_data"
REBUILD = "python -m dsd_lab.worlds.build_icons"
CREDIT = (
    "Icons: Noto Emoji (Google, Apache-2.0), Twemoji (Twitter, CC BY 4.0), "
    "Fluent Emoji (Microsoft, MIT), EmojiOne (CC BY 4.0), FxEmojis (Mozilla, CC BY 4.0); "
    "rasterised at 64x64 on white."
)


@lru_cache
def icons(size: int = 64) -> PictureWorld:
    """About a hundred prompts ("a dragon", "a hamburger", ...) with at least six drawings each, on
    white.

    `size` is in pixels per side, 8 to 64. The world is shared between callers: do not write into
    its tensors.
    Raises ValueError for another size or a damaged data file.
    """
    return load(DATA).resized(size)


@lru_cache
def load(data: Path) -> PictureWorld:
    """Read icons.npz in the folder `data`, after comparing it with the checksum beside it."""
    content = read_shipped(data / "icons.npz", data / "icons.npz.sha256", REBUILD)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        table = dict(file)
    return PictureWorld(
        name="icons",
        prompts=tuple(table["prompts"].tolist()),
        pixels=torch.from_numpy(table["images"]).permute(0, 3, 1, 2).contiguous(),
        label=torch.from_numpy(table["label"]).long(),
        sources=tuple(map(Source, *(table[key].tolist() for key in ("set", "name", "licence")))),
        aliases=dict(zip(table["alias"].tolist(), table["alias_prompt"].tolist(), strict=True)),
        credit=CREDIT,
    )
