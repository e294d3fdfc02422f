"""The toybox: procedural toys, rendered from any camera, and worlds of them."""

from .builder import COLOURS
from .render import render
from .toys import KINDS, Toys, make_toys
from .world import CREDIT, ToyboxWorld, toy_shop, toybox

__all__ = [
    "COLOURS",
    "CREDIT",
    "KINDS",
    "ToyboxWorld",
    "Toys",
    "make_toys",
    "render",
    "toy_shop",
    "toybox",
]
