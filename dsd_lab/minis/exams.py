"""Measure a mini against what it was trained on: `dsd-lab quality icons-mini`.

Pictures are compared with the world's pictures. A mini that is told the camera is asked for toys
that it has seen and for pairs of colour and kind that it has not, and its samples are compared with
true toys from the same camera.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..cameras import Camera, orbit
from ..metrics import distances, mean_pairwise, precision_recall
from ..priors import PipelinePrior
from ..sampling import ddim
from ..worlds import ToyboxWorld, render
from ..worlds.toybox.world import COLOURS, KINDS, toy_shop
from .text_to_image import held_out_pairs

VIEWS = orbit(4, 15.0, start=30.0)  # from which toys are judged
UNSEEN = 16  # toys a kind, each colour twice, that no training has seen: the judge's
NEAR_COPY = 0.05  # RMSE under which a sample counts as a copy of a training picture


@dataclass(frozen=True)
class Quality:
    """What DDIM samples of all prompts are worth, next to the world's pictures. Distances are RMSE
    per channel.

    accuracy: share of samples whose nearest labelled picture has the prompt's label. data_accuracy:
    the same for the pictures themselves, each left out in turn, which says how hard the question
    is. distance: to the nearest picture of the prompt. near_copies: share of samples closer than
    `NEAR_COPY` to a training picture. precision, recall: of the samples against the data (arXiv
    1904.06991, in pixels). pairwise, data_pairwise: between samples, and between pictures, of one
    prompt, averaged over prompts. reconstruction: PSNR of the autoencoder on all pictures, in
    decibels.
    """

    prompts: int
    samples: int
    steps: int
    cfg: float
    accuracy: float
    data_accuracy: float
    distance: float
    near_copies: float
    precision: float
    recall: float
    pairwise: float
    data_pairwise: float
    reconstruction: float


@dataclass(frozen=True)
class ViewQuality:
    """What DDIM samples of all prompts are worth for a mini that is told the camera, next to true
    toys that it never saw.

    kind: share of samples of "a chair" whose nearest true toy, seen from the same camera, is a
    chair. seen_kind, seen_colour: the same for "a red chair", where the colour is that of the toy
    with the nearest histogram of colours; held_out_kind, held_out_colour: for the pairs that
    training left out. view: share of samples that are nearest to a toy of their kind from the
    camera asked for, and not from one 90 degrees away. data_kind, data_colour, data_view: the same
    for the true toys, each left out in turn: how well the judge does. distance, data_distance: of
    samples, and of the true toys, to the nearest toy that was trained on; near_copies: share of
    samples closer to one than `NEAR_COPY`. pairwise, data_pairwise: between samples, and between
    true toys, of a kind from one camera. reconstruction: PSNR of the autoencoder on the true toys,
    in decibels.
    """

    prompts: int
    samples: int
    steps: int
    cfg: float
    kind: float
    seen_kind: float
    seen_colour: float
    held_out_kind: float
    held_out_colour: float
    view: float
    data_kind: float
    data_colour: float
    data_view: float
    distance: float
    data_distance: float
    near_copies: float
    pairwise: float
    data_pairwise: float
    reconstruction: float


def sample(
    prior: PipelinePrior,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    cfg: float,
    progress: Callable[[int], None] | None = None,
    cameras: Sequence[Camera] | None = None,
) -> Tensor:
    """DDIM pictures of each prompt from the same seeds: (len(prompts), len(seeds), 3, H, W) in [0,
    1].

    cameras: one a seed, for a prior that is told the camera.
    """
    noise, made = prior.noise(seeds), []
    for prompt in prompts:
        made.append(ddim(prior, noise, prior.condition(prompt, camera=cameras), steps, cfg).images)
        if progress:
            progress(len(made))
    return torch.stack(made)


def measure(
    prior: PipelinePrior,
    steps: int = 25,
    cfg: float = 4.0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Quality | ViewQuality, Tensor]:
    """`quality`, or `view_quality` for a prior that is told the camera, with their usual seeds.

    Raises ValueError for a prior that does not know its world.
    """
    if prior.world is None:
        raise ValueError(
            f"{prior.name} does not know the pictures it was trained on: there is nothing to compare with"
        )
    return (view_quality if prior.cameras else quality)(
        prior, steps=steps, cfg=cfg, progress=progress
    )


def quality(
    prior: PipelinePrior,
    seeds: Sequence[int] = range(8),
    steps: int = 25,
    cfg: float = 4.0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Quality, Tensor]:
    """Measure samples of every prompt of the prior's world of pictures; also returns them, (P, S,
    3, H, W).
    """
    world, n = prior.world, len(list(seeds))
    pictures = world.images()
    made = sample(prior, world.prompts, seeds, steps, cfg, progress)
    label = torch.arange(len(world.prompts)).repeat_interleave(n)
    between = distances(made.flatten(0, 1), pictures)
    own = distances(pictures, pictures).fill_diagonal_(torch.inf)
    among = between.masked_fill(world.label[None] != label[:, None], torch.inf)
    shares = precision_recall(made.flatten(0, 1), pictures)
    return Quality(
        prompts=len(world.prompts),
        samples=len(label),
        steps=steps,
        cfg=cfg,
        accuracy=share(world.label[between.argmin(1)] == label),
        data_accuracy=share(world.label[own.argmin(1)] == world.label),
        distance=float(among.amin(1).mean()),
        near_copies=share(between.amin(1) < NEAR_COPY),
        precision=shares.precision.value,
        recall=shares.recall.value,
        pairwise=mean_within(made),
        data_pairwise=mean_within(map(world.images, world.prompts)),
        reconstruction=reconstruction(prior, pictures),
    ), made


def view_quality(
    prior: PipelinePrior,
    seeds: Sequence[int] = range(2),
    steps: int = 25,
    cfg: float = 4.0,
    progress: Callable[[int], None] | None = None,
) -> tuple[ViewQuality, Tensor]:
    """Measure samples of every prompt of the prior's world of toys from `VIEWS`; also returns them,
    (P, S, V, 3, H, W).
    """
    world, n, across = prior.world, len(list(seeds)), len(VIEWS)
    made = sample(
        prior,
        world.prompts,
        [seed for seed in seeds for _ in VIEWS],
        steps,
        cfg,
        progress,
        VIEWS * n,
    )
    made = made.unflatten(1, (n, across))
    samples = made.flatten(0, 1)  # (M, V, 3, H, W)
    held_out = held_out_pairs()
    asked = [pair for prompt in world.prompts for pair in [colour_and_kind(prompt)] * n]
    colour = torch.tensor([COLOUR_NUMBER.get(colour, -1) for colour, _ in asked])
    kind = torch.tensor([KINDS.index(kind) for _, kind in asked])
    new = torch.tensor([pair in held_out for pair in asked])
    plain, seen = colour < 0, (colour >= 0) & ~new

    judge = Judge(toy_shop(UNSEEN, first=len(world) // len(KINDS)))
    told, true = judge(samples, kind), judge(judge.pictures, judge.kind, left_out=True)
    learned = render(
        world.toys.subset(
            [
                i
                for i, pair in enumerate(zip(world.toys.colours, world.toys.kinds, strict=True))
                if pair not in held_out
            ]
        ),
        VIEWS,
    ).rgb

    def to_learned(pictures):
        return torch.stack(
            [distances(pictures[:, v], learned[:, v]).amin(1) for v in range(across)]
        )

    near, sides = to_learned(samples), torch.arange(across)
    return ViewQuality(
        prompts=len(world.prompts),
        samples=samples.shape[0] * across,
        steps=steps,
        cfg=cfg,
        kind=share((told.kind == kind[:, None])[plain]),
        seen_kind=share((told.kind == kind[:, None])[seen]),
        seen_colour=share((told.colour == colour[:, None])[seen]),
        held_out_kind=share((told.kind == kind[:, None])[new]),
        held_out_colour=share((told.colour == colour[:, None])[new]),
        view=share(told.view == sides),
        data_kind=share(true.kind == judge.kind[:, None]),
        data_colour=share(true.colour == judge.colour[:, None]),
        data_view=share(true.view == sides),
        distance=float(near.mean()),
        data_distance=float(to_learned(judge.pictures).mean()),
        near_copies=share(near < NEAR_COPY),
        pairwise=mean_within(
            own[:, v] for own in samples[plain].unflatten(0, (-1, n)) for v in range(across)
        ),
        data_pairwise=mean_within(
            judge.pictures[judge.kind == k, v] for k in judge.kind.unique() for v in range(across)
        ),
        reconstruction=reconstruction(prior, judge.pictures.flatten(0, 1)),
    ), made


COLOUR_NUMBER = {name: number for number, name in enumerate(COLOURS)}


def colour_and_kind(prompt: str) -> tuple[str, str]:
    """The words of a toy's prompt: "a red teddy bear" -> ("red", "teddy bear"), "a chair" -> ("",
    "chair").
    """
    first, _, rest = prompt.split(" ", 1)[1].partition(" ")
    return (first, rest) if first in COLOURS else ("", f"{first} {rest}".strip())


class Told(NamedTuple):
    """What a judge tells from pictures: kind, colour and view as numbers, int64 (M, V) each."""

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

    def __call__(self, pictures: Tensor, kind: Tensor, left_out: bool = False) -> Told:
        """What pictures (M, V, 3, H, W) from `VIEWS` show; kind (M,): what they should show, for
        the side they show it from.

        left_out: the pictures are the judge's own, and each toy is judged by the others.
        """
        (m, v), n = pictures.shape[:2], len(self.pictures)
        between = distances(pictures.flatten(0, 1), self.pictures.flatten(0, 1)).reshape(m, v, n, v)
        colours = torch.cdist(
            *(colour_histogram(own).movedim(1, 0) for own in (pictures, self.pictures))
        ).movedim(0, 1)
        if left_out:
            between[torch.arange(m), :, torch.arange(m)] = torch.inf
            colours[torch.arange(m), :, torch.arange(m)] = torch.inf
        same = between.diagonal(dim1=1, dim2=3)  # the same camera: (M, N, V)
        sides = between.masked_fill((self.kind != kind[:, None])[:, None, :, None], torch.inf).amin(
            2
        )  # (M, V, V)
        return Told(self.kind[same.argmin(1)], self.colour[colours.argmin(2)], sides.argmin(2))


def colour_histogram(pictures: Tensor, bins: int = 6) -> Tensor:
    """Square roots of the shares of colours, `bins` a channel, of what is not white: (..., 3, H, W)
    -> (..., bins^3).
    """
    pixels = pictures.flatten(-2).mT
    number = ((pixels * bins).long().clamp(max=bins - 1) * torch.tensor([bins**2, bins, 1])).sum(-1)
    thing = (pixels.amin(-1) < 0.92).float()
    counts = pixels.new_zeros(*number.shape[:-1], bins**3).scatter_add_(-1, number, thing)
    return (counts / counts.sum(-1, keepdim=True).clamp(min=1)).sqrt()


def share(right: Tensor) -> float:
    """The share of True."""
    return float(right.double().mean())


def mean_within(groups: Iterable[Tensor]) -> float:
    """The mean distance between the pictures (n, 3, H, W) of a group, averaged over groups."""
    values = [mean_pairwise(distances(own, own)) for own in groups]
    return sum(values) / len(values)


@torch.no_grad()
def reconstruction(prior: PipelinePrior, pictures: Tensor) -> float:
    """PSNR in decibels of what the prior's autoencoder makes of pictures (N, 3, H, W)."""
    again = torch.cat([prior.decode(prior.encode(part)) for part in pictures.split(32)])
    return float(-10 * (again - pictures).square().mean().log10())


def seconds_a_prediction(prior: PipelinePrior, batch: int = 16, repeats: int = 20) -> float:
    """Seconds for one picture's prediction in a batch, the median of some calls."""
    x, times = prior.noise(range(batch)), []
    cond = prior.condition(prior.prompts[0], camera=Camera() if prior.cameras else None)
    for _ in range(repeats + 3):
        began = time.perf_counter()
        prior.predict(x, 500, cond, ("cond",))
        times.append(time.perf_counter() - began)
    return sorted(times[3:])[repeats // 2] / batch
