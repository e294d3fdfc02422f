"""A judge of pictures of toys: which kind, which colour, from which side."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..cameras import orbit
from ..metrics import distances
from ..worlds import ToyboxWorld, render
from ..worlds.toybox.world import COLOURS

VIEWS = orbit(4, 15.0, start=30.0)  # from which toys are judged
COLOUR_NUMBER = {name: number for number, name in enumerate(COLOURS)}


class Verdict(NamedTuple):
    """What pictures show: kind, colour and view as numbers, int64 (M, V) each."""

    kind: Tensor
    colour: Tensor
    view: Tensor


class Judge:
    """Tells what a picture of a toy shows by the nearest of true toys, seen from the same camera.

    pictures: (N, V, 3, H, W) of the toys from `VIEWS`; kind, colour: their numbers, int64 (N,).
    """

    def __init__(self, world: ToyboxWorld):
        self.pictures = render(world.toys, VIEWS).rgb
        self.kind = world.kind_label
        self.colour = torch.tensor([COLOUR_NUMBER[colour] for colour in world.toys.colours])

    def __call__(self, pictures: Tensor, kind: Tensor, left_out: bool = False) -> Verdict:
        """The verdict on pictures (M, V, 3, H, W) from `VIEWS`: kind by RMSE, colour by the nearest
        histogram, and the side from which they show a toy of their kind (M,).

        left_out: the pictures are the judge's own, and each toy is judged by the others.
        """
        (m, v), n = pictures.shape[:2], len(self.pictures)
        between = distances(pictures.flatten(0, 1), self.pictures.flatten(0, 1)).reshape(m, v, n, v)
        histograms = (colour_histogram(views).movedim(1, 0) for views in (pictures, self.pictures))
        colours = torch.cdist(*histograms).movedim(0, 1)
        if left_out:
            each = torch.arange(m)
            between[each, :, each] = colours[each, :, each] = torch.inf
        same_camera = between.diagonal(dim1=1, dim2=3)  # (M, N, V)
        other_kind = (self.kind != kind[:, None])[:, None, :, None]
        sides = between.masked_fill(other_kind, torch.inf).amin(2)  # (M, V, V)
        kinds = self.kind[same_camera.argmin(1)]
        return Verdict(kinds, self.colour[colours.argmin(2)], sides.argmin(2))


def colour_histogram(pictures: Tensor, bins: int = 6) -> Tensor:
    """Square roots of the shares of colours, `bins` a channel, of what is not white: (..., 3, H, W)
    -> (..., bins^3).
    """
    pixels = pictures.flatten(-2).mT
    place = torch.tensor([bins**2, bins, 1], device=pixels.device)
    number = ((pixels * bins).long().clamp(max=bins - 1) * place).sum(-1)
    coloured = (pixels.amin(-1) < 0.92).float()
    counts = pixels.new_zeros(*number.shape[:-1], bins**3).scatter_add_(-1, number, coloured)
    return (counts / counts.sum(-1, keepdim=True).clamp(min=1)).sqrt()
