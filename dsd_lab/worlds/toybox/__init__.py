"""The toybox: procedural toys, rendered from any camera, and worlds of them."""

from .render import render
from .toys import Toys, make_toys
from .world import COLOURS, CREDIT, KINDS, ToyboxWorld, toy_shop, toybox

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
