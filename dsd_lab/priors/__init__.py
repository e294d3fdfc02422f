"""Diffusion priors: what they predict, on which conditions, and how to get one by name."""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path

from ..worlds import folder, icons
from .base import Condition, Prediction, Prior, Query, check_cfg, guidance_terms, guide
from .exact import ExactPrior, GaussianMixture, ImageSet

__all__ = ["Condition", "ExactPrior", "GaussianMixture", "ImageSet", "Prediction", "Prior", "Query", "check_cfg",
           "guidance_terms", "guide", "load_prior"]


@lru_cache(maxsize=4)
def _icons(size: int) -> ImageSet:
    return ImageSet(icons(size))


def load_prior(name: str | Path, size: int = 64) -> Prior:
    """A prior by name: "icons" (exact, shipped), or a folder of pictures with one sub-folder a label.

    size: side of the pictures in pixels; 32 makes a smaller, faster prior.
    Raises ValueError for an unknown name (with the nearest) or an unusable folder.
    """
    if str(name) == "icons":
        return _icons(size)
    if Path(name).expanduser().is_dir():
        return ImageSet(folder(Path(name).expanduser(), size))
    near = difflib.get_close_matches(str(name), ["icons"], 1, 0.5)
    hint = f' did you mean "{near[0]}"?' if near else ""
    raise ValueError(f'unknown prior "{name}";{hint} allowed: "icons", or a folder of pictures with one sub-folder a label')
