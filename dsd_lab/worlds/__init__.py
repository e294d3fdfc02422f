"""Worlds: pictures under prompts, for priors to be made from."""

from .icons import icons
from .pictures import PictureWorld, folder

__all__ = ["PictureWorld", "folder", "icons"]
