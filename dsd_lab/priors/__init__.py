"""Diffusion priors: what they predict, on which conditions, and how to get one by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch

from ..worlds import PictureWorld, ToyboxWorld, folder, icons, toy_shop, toybox
from .base import Condition, Prediction, Prior, Query, check_cfg, guidance_terms, guide
from .exact import ExactPrior, GaussianMixture, ImageSet
from .novel_view import NovelViewPrior, NovelViewSet, load_novel_view
from .pipeline import PipelinePrior, load_pipeline
from .view_prompts import ViewPrompts
from .views import ViewSet

__all__ = [
    "Condition",
    "ExactPrior",
    "GaussianMixture",
    "ImageSet",
    "NovelViewPrior",
    "NovelViewSet",
    "PipelinePrior",
    "Prediction",
    "Prior",
    "Query",
    "ViewPrompts",
    "ViewSet",
    "check_cfg",
    "guidance_terms",
    "guide",
    "load_novel_view",
    "load_pipeline",
    "load_prior",
]

MODELS = Path(__file__).resolve().parents[1] / "models"  # the networks that come with the package
MINIS: dict[
    str, Callable[[], PictureWorld | ToyboxWorld] | None
] = {  # and the world each one has seen
    "icons-mini": lambda: icons(64),
    "toybox-mini": toy_shop,
    "toybox-novel-view-mini": None,
}


@lru_cache(maxsize=4)
def _icons(size: int) -> ImageSet:
    return ImageSet(icons(size))


@lru_cache(maxsize=4)
def _toybox(size: int, joint: bool = False) -> ViewSet:
    return ViewSet(toybox(size), joint=joint)


@lru_cache(maxsize=4)
def _new_views(size: int, joint: bool = False) -> NovelViewSet:
    return NovelViewSet(toybox(size), joint=joint)


EXACT = {
    "icons": _icons,
    "toybox": _toybox,
    "toybox-joint": partial(_toybox, joint=True),
    "toybox-novel-view": _new_views,
    "toybox-novel-view-joint": partial(_new_views, joint=True),
}


@lru_cache(maxsize=4)
def _mini(name: str, device: str | torch.device, dtype: torch.dtype | None) -> PipelinePrior:
    if not (MODELS / name).is_dir():
        raise ValueError(
            f'the network of "{name}" is not in this copy of the package: there is no folder {MODELS / name}'
        )
    world = MINIS[name]
    return load_pipeline(MODELS / name, device, dtype, world=world and world(), name=name)


_hub = lru_cache(maxsize=1)(load_pipeline)  # these are large: one is kept


def load_prior(
    name: str | Path,
    size: int = 64,
    *,
    download: bool = False,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
) -> Prior:
    """A prior by name: a shipped one, a pipeline's folder, a folder of pictures, or a hub id, the
    first of these that fits.

    "icons" (exact); "toybox" (exact, objects seen from cameras); "toybox-novel-view" (exact, what
    other cameras see given a picture), and both with "-joint" (all views denoised together, as
    multi-view diffusion models do); "icons-mini" (a small network); "toybox-mini" (one that is told
    the camera, any); "toybox-novel-view-mini" (one of new views); a folder with a model_index.json,
    as diffusers saves pipelines, those like Zero-1-to-3 too; a folder of pictures with one
    sub-folder a label (exact); "owner/name", a pipeline on the Hugging Face hub.
    size: side of an exact prior's pictures in pixels; 32 makes a smaller, faster prior. A network
    has its own.
    download: whether a hub id may be fetched from the network; else it must have been before.
    device, dtype: of a network, see `PipelinePrior`; exact priors are on the CPU.
    Raises ValueError for an unknown name (with the nearest) or an unusable folder.
    """
    path = Path(name).expanduser()
    if str(name) in EXACT:
        return EXACT[str(name)](size)
    if str(name) in MINIS:
        return _mini(str(name), device, dtype)
    if path.is_dir():
        of_network = any(
            (path / part).exists()
            for part in ("model_index.json", "unet", "transformer", "config.json")
        )
        return load_pipeline(path, device, dtype) if of_network else ImageSet(folder(path, size))
    if path.is_file() or str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        return _hub(str(name), device, dtype, download)
    near = difflib.get_close_matches(str(name), [*EXACT, *MINIS], 1, 0.5)
    hint = f' did you mean "{near[0]}"?' if near else ""
    shipped = ", ".join(f'"{own}"' for own in [*EXACT, *MINIS])
    raise ValueError(
        f'unknown prior "{name}";{hint} allowed: {shipped}, a folder of pictures with one sub-folder a label, '
        'a folder with a model_index.json, or a hub id "owner/name"'
    )
