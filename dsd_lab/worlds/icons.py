"""The world `icons`: real drawings of everyday things, by several artists per prompt."""

import hashlib
import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from .pictures import PictureWorld, Source

DATA = Path(__file__).parent / "icons_data"
CREDIT = (
    "Icons: Noto Emoji (Google, Apache-2.0), Twemoji (Twitter, CC BY 4.0), Fluent Emoji (Microsoft, MIT), "
    "EmojiOne (CC BY 4.0), FxEmojis (Mozilla, CC BY 4.0); rasterised at 64x64 on white."
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
    try:
        content = (data / "icons.npz").read_bytes()
        wanted = (data / "icons.npz.sha256").read_text().split()[0]
    except (OSError, IndexError) as error:
        raise ValueError(_damaged(data, "is missing or cannot be read")) from error
    if hashlib.sha256(content).hexdigest() != wanted:
        raise ValueError(_damaged(data, "does not match its checksum"))

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


def _damaged(data, what):
    return (
        f"{data / 'icons.npz'} {what}; reinstall dsd_lab, "
        "or rebuild the file with `python -m dsd_lab.worlds.build_icons`"
    )
