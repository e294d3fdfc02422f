"""Worlds: pictures under prompts, for priors to be made from."""

from .folders import folder
from .icons import icons
from .pictures import PictureWorld
from .prompts import World
from .toybox import ToyboxWorld, Toys, make_toys, render, toy_shop, toybox

__all__ = [
    "PictureWorld",
    "Toys",
    "ToyboxWorld",
    "World",
    "folder",
    "icons",
    "make_toys",
    "render",
    "toy_shop",
    "toybox",
]
