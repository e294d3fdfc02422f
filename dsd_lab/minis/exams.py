"""Measure a mini against what it was trained on: `dsd-lab quality icons-mini`.

An exam asks for DDIM samples and says what they are worth, next to true pictures. Distances are
RMSE per channel with pictures in [0, 1]. There is an exam for each kind of mini: pictures from
prompts, toys from prompts and cameras, new views of a toy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

from ..cameras import Camera, orbit, sample_cameras
from ..draws import generator_of
from ..inputs import input_view
from ..metrics import distances, mean_pairwise, precision_recall
from ..metrics.sets import FEWEST
from ..priors import Prior
from ..sampling import ddim
from ..scene.fit import psnr
from ..threads import one_thread
from ..viz.pictures import sheet
from ..worlds import Toys, make_toys, render, toy_shop
from ..worlds.toybox.world import COLOURS, KINDS, colour_and_kind, held_out_pairs, without_held_out
from .data import GIVEN, toys_to_turn
from .judge import COLOUR_NUMBER, VIEWS, Judge, Verdict

NEAR_COPY = 0.05  # RMSE under which a sample counts as a copy of a training picture
UNSEEN = 16  # toys a kind, each colour twice, that no training has seen: the judge's
FIRST, TOYS = 200, 2  # seeds that no training has used, and toys a kind
BAR = {"desc": "samples", "leave": False, "disable": None}  # of progress, on a terminal only


class Exam:
    """How a kind of mini is measured and shown; each kind says how by three methods.

        sample(steps, cfg) -> DDIM samples of all that it asks for, on the CPU
        judge(samples) -> what they are worth: a number a measure
        sheet(samples, credit) -> the figure for the card

    card: the template of its model card. cfg: guidance, unless given. seeds: of the samples.
    """

    card: str
    cfg = 4.0
    seeds: Sequence[int]

    def __init__(self, prior: Prior):
        self.prior = prior

    def measure(self, steps: int = 25, cfg: float | None = None) -> tuple[dict[str, float], Tensor]:
        """Steps, guidance and what `judge` says; and the samples."""
        cfg = self.cfg if cfg is None else cfg
        with one_thread():
            samples = self.sample(steps, cfg)
            return {"steps": steps, "cfg": cfg, **self.judge(samples)}, samples


def exam_of(prior: Prior) -> Exam:
    """The exam for a prior's kind. Raises ValueError for one that does not know its world."""
    if prior.asked_by == "picture":
        return NovelViewExam(prior)
    if prior.world is None:
        raise ValueError(
            f"{prior.name} does not know the pictures it was trained on: "
            "there is nothing to compare with"
        )
    if prior.cameras is None:
        return PictureExam(prior)
    return ToyExam(prior) if prior.views_per_item == 1 else MultiViewExam(prior)


class PictureExam(Exam):
    """Samples of every prompt, (P, S, 3, H, W), next to the world's pictures.

    accuracy: share of samples whose nearest labelled picture has the prompt's label. data_accuracy:
    the same for the pictures themselves, each left out in turn, which says how hard the question
    is. distance: to the nearest picture of the prompt. near_copies: share of samples closer than
    `NEAR_COPY` to a training picture. precision, recall: of the samples against the data (arXiv
    1904.06991, in pixels), unless these are fewer than 64 pictures. pairwise, data_pairwise:
    between samples, and between pictures, of one prompt, averaged over prompts. reconstruction:
    PSNR of the autoencoder on all pictures, in decibels.
    """

    card = "pictures.md.jinja"

    @property
    def seeds(self) -> range:
        """Eight, and more for few prompts: as many samples as `precision_recall` needs."""
        return range(max(8, math.ceil(FEWEST / len(self.prior.world.prompts))))

    def sample(self, steps, cfg):
        return sample(self.prior, self.prior.world.prompts, self.seeds, steps, cfg)

    def judge(self, samples):
        world, pictures = self.prior.world, self.prior.world.images()
        label = torch.arange(len(samples)).repeat_interleave(samples.shape[1])
        to_data = distances(samples.flatten(0, 1), pictures)
        of_prompt = to_data.masked_fill(world.label[None] != label[:, None], torch.inf)
        others = distances(pictures, pictures).fill_diagonal_(torch.inf)
        numbers = {
            "prompts": len(world.prompts),
            "samples": len(label),
            "accuracy": share(world.label[to_data.argmin(1)] == label),
            "data_accuracy": share(world.label[others.argmin(1)] == world.label),
            "distance": float(of_prompt.amin(1).mean()),
            "near_copies": share(to_data.amin(1) < NEAR_COPY),
            "pairwise": mean_within(samples),
            "data_pairwise": mean_within(map(world.images, world.prompts)),
            "reconstruction": reconstruction(self.prior, pictures),
        }
        if len(pictures) < FEWEST:
            return numbers
        shares = precision_recall(samples.flatten(0, 1), pictures)
        return numbers | {"precision": shares.precision.value, "recall": shares.recall.value}

    def sheet(self, samples, credit):
        """The first sample of every prompt, twelve in a row."""
        rows = {" " * k: samples[i : i + 12, 0] for k, i in enumerate(range(0, len(samples), 12))}
        return sheet(rows, title="One sample of every prompt", credit=credit, tile=0.7)


class Seen(NamedTuple):
    """Pictures of M toys (M, V, 3, H, W), of which kind they should be (M,), and the verdict."""

    pictures: Tensor
    kind: Tensor
    verdict: Verdict


class ToyExam(Exam):
    """Samples of every prompt from `VIEWS`, (P, S, V, 3, H, W), next to true toys that the mini
    never saw, judged by a `Judge`.

    kind: share of samples of "a chair" that show a chair. seen_kind, seen_colour: of "a red chair";
    held_out_kind, held_out_colour: of the pairs that training left out. view: share of samples that
    are nearest to a toy of their kind from the camera asked for, and not from one 90 degrees away.
    data_kind, data_colour, data_view: the same for the true toys, each left out in turn: how well
    the judge does. distance, data_distance: of samples, and of the true toys, to the nearest toy
    that was trained on; near_copies: share of samples closer to one than `NEAR_COPY`. pairwise,
    data_pairwise: between samples, and between true toys, of a kind from one camera.
    reconstruction: PSNR of the autoencoder on the true toys, in decibels.
    """

    card = "toys.md.jinja"
    seeds = range(2)

    def sample(self, steps, cfg):
        seeds, cameras = [s for s in self.seeds for _ in VIEWS], VIEWS * len(self.seeds)
        prompts = self.prior.world.prompts
        samples = sample(self.prior, prompts, seeds, steps, cfg, cameras)
        return samples.unflatten(1, (len(self.seeds), len(VIEWS)))

    def judge(self, samples):
        world, (prompts, seeds, views) = self.prior.world, samples.shape[:3]
        samples = samples.flatten(0, 1)  # (M, V, 3, H, W)
        pairs = [colour_and_kind(prompt) for prompt in world.prompts for _ in range(seeds)]
        colour = torch.tensor([COLOUR_NUMBER.get(colour, -1) for colour, _ in pairs])
        kind = torch.tensor([KINDS.index(kind) for _, kind in pairs])
        held_out = torch.tensor([pair in held_out_pairs() for pair in pairs])
        plain, seen = colour < 0, (colour >= 0) & ~held_out

        judge = Judge(toy_shop(UNSEEN, first=len(world) // len(KINDS)))
        verdict, truth = judge(samples, kind), judge(judge.pictures, judge.kind, left_out=True)
        right_kind, right_colour = verdict.kind == kind[:, None], verdict.colour == colour[:, None]
        learned = render(without_held_out(world.toys), VIEWS).rgb
        near = to_nearest(samples, learned)
        of_kinds = [judge.pictures[judge.kind == k] for k in judge.kind.unique()]
        return {
            "prompts": prompts,
            "samples": len(samples) * views,
            "kind": share(right_kind[plain]),
            "seen_kind": share(right_kind[seen]),
            "seen_colour": share(right_colour[seen]),
            "held_out_kind": share(right_kind[held_out]),
            "held_out_colour": share(right_colour[held_out]),
            "view": share(verdict.view == torch.arange(views)),
            "data_kind": share(truth.kind == judge.kind[:, None]),
            "data_colour": share(truth.colour == judge.colour[:, None]),
            "data_view": share(truth.view == torch.arange(views)),
            "distance": float(near.mean()),
            "data_distance": float(to_nearest(judge.pictures, learned).mean()),
            "near_copies": share(near < NEAR_COPY),
            "pairwise": mean_within(by_view(samples[plain].unflatten(0, (-1, seeds)))),
            "data_pairwise": mean_within(by_view(of_kinds)),
            "reconstruction": reconstruction(self.prior, judge.pictures.flatten(0, 1)),
            **self.of_sets(Seen(samples, kind, verdict), Seen(judge.pictures, judge.kind, truth)),
        }

    def of_sets(self, samples: Seen, toys: Seen) -> dict[str, float]:
        """What the views of a sample are worth together: nothing is said where each was denoised
        alone.
        """
        return {}

    def sheet(self, samples, credit):
        """A row a kind: from all `VIEWS`, then in all colours, held-out pairs framed."""
        first = dict(
            zip(map(colour_and_kind, self.prior.world.prompts), samples[:, 0], strict=True)
        )
        gap, held_out = torch.ones_like(samples[0, 0, 0]), held_out_pairs()

        def tile(pair):
            picture = first[pair][0] if pair in first else gap
            return pad(picture[:, 2:-2, 2:-2], (2,) * 4) if pair in held_out else picture

        rows = {
            kind: [*first["", kind], gap, *(tile((colour, kind)) for colour in COLOURS)]
            for kind in KINDS
            if ("", kind) in first
        }
        heads = [*(f"{camera.azimuth % 360:g}°" for camera in VIEWS), "", *COLOURS]
        title = "Every kind from four sides, and in every colour"
        return sheet(rows, heads, title, credit, tile=0.6)


class MultiViewExam(ToyExam):
    """A `ToyExam` whose `VIEWS` of a sample were denoised jointly, and what that is for.

    one_object: share of samples whose views all show the kind asked for, in one colour;
    data_one_object: of the true toys. recall, precision: of the samples against the true toys, all
    views of one as one picture (arXiv 1904.06991, in pixels), unless there are fewer than 64.
    """

    card = "multi_view.md.jinja"

    def of_sets(self, samples, toys):
        numbers = {
            "one_object": share(one_object(samples)),
            "data_one_object": share(one_object(toys)),
        }
        if min(len(samples.kind), len(toys.kind)) < FEWEST:
            return numbers
        tall = (seen.pictures.movedim(1, 2).flatten(2, 3) for seen in (samples, toys))
        shares = precision_recall(*tall)
        return numbers | {"precision": shares.precision.value, "recall": shares.recall.value}


def one_object(seen: Seen) -> Tensor:
    """Whether all views show the kind, in one colour: bool (M,)."""
    kind, colour, _ = seen.verdict
    return ((kind == seen.kind[:, None]) & (colour == colour[:, :1])).all(1)


class NovelViewExam(Exam):
    """Samples of new views, (N, 2, S, 4, 3, H, W), of toys that were never trained on, given from
    `GIVEN` and then from a camera of its own each. Wanted are four around, 45 degrees to either
    side of the given one and of the opposite one, 20 degrees above. PSNR in decibels, against the
    true views.

    psnr: of the samples. same_psnr: of the given picture in the place of every view, and known_psnr
    of the training's toy of that kind that is most like the picture: what not turning, and only
    remembering, would give. view: share of samples that are nearest to the view wanted, of the four
    of their toy. near, behind: distance between the samples of two seeds, from the two cameras on
    the seen side and the two on the unseen side, where more is open. any_psnr and so on: the same,
    given from any camera. reconstruction: PSNR of the autoencoder.
    """

    card = "novel_view.md.jinja"
    cfg = 2.0
    seeds = (0, 1)

    def __init__(self, prior: Prior):
        super().__init__(prior)
        kinds = [kind for kind in KINDS for _ in range(TOYS)]
        self.toys = make_toys(kinds, [*range(FIRST, FIRST + TOYS)] * len(KINDS))
        self.cameras = [(GIVEN, own) for own in sample_cameras(len(kinds), generator_of(FIRST))]

    @cached_property
    def views(self) -> Tensor:
        """Of the toys, from each given camera: the given view and the wanted ones, (N, 2, 1 + 4, 3,
        H, W).
        """
        pairs = ((self.toys.subset([i]), own) for i, own in enumerate(self.cameras))
        return torch.stack([self._rendered(toy, own)[0] for toy, own in pairs])

    def _rendered(self, toys: Toys, cameras: Sequence[Camera]) -> Tensor:
        """What each of the cameras is given and asked for, (N, C, 1 + 4, 3, H, W)."""
        views = [view for camera in cameras for view in (camera, *wanted(camera))]
        return render(toys, views, self.prior.picture_size).rgb.unflatten(1, (len(cameras), -1))

    def sample(self, steps, cfg):
        prior, shape = self.prior, (len(self.seeds), 4)
        noise, samples = prior.noise([seed for seed in self.seeds for _ in range(4)]), []
        pictures, cameras = self.views[:, :, 0].flatten(0, 1), chain.from_iterable(self.cameras)
        for picture, camera in zip(tqdm(pictures, **BAR), cameras, strict=True):
            given = input_view(picture, camera, prior.picture_size)
            cond = prior.condition(given, camera=wanted(camera) * len(self.seeds))
            samples.append(ddim(prior, noise, cond, steps, cfg).images.cpu().unflatten(0, shape))
        return torch.stack(samples).unflatten(0, (-1, 2))

    def judge(self, samples):
        front, other = (self._judged(samples[:, k], self.views[:, k], k) for k in range(2))
        return {
            "toys": len(samples),
            "samples": samples[:, 0, ..., 0, 0, 0].numel(),
            **front,
            **{f"any_{name}": value for name, value in other.items()},
            "reconstruction": reconstruction(self.prior, self.views[:, 0, 0]),
        }

    def _judged(self, samples: Tensor, views: Tensor, which: int) -> dict[str, float]:
        """The numbers of samples (N, S, 4, 3, H, W) of views (N, 1 + 4, 3, H, W), from the given
        cameras of that number.
        """
        given, true = views[:, 0], views[:, 1:]
        pairs = zip(samples, true, strict=True)
        nearest = torch.stack([distances(s.flatten(0, 1), t).argmin(1) for s, t in pairs])

        def decibels(views):
            return float(psnr(views.flatten(0, 1), true.flatten(0, 1)).mean())

        return {
            "psnr": sum(map(decibels, samples.unbind(1))) / samples.shape[1],
            "same_psnr": decibels(given[:, None].expand_as(true)),
            "known_psnr": decibels(self._remembered(given, which)),
            "view": share(nearest.unflatten(1, (-1, 4)) == torch.arange(4)),
            "near": mean_within(by_view(samples[:, :, [0, 3]])),
            "behind": mean_within(by_view(samples[:, :, [1, 2]])),
        }

    def _remembered(self, given: Tensor, which: int) -> Tensor:
        """The wanted views of the training's toy of each kind that is most like the given picture:
        (N, 4, 3, H, W).
        """
        views, size = [], self.prior.picture_size
        for picture, kind, cameras in zip(given, self.toys.kinds, self.cameras, strict=True):
            known, camera = toys_to_turn(kinds=[kind]), cameras[which]
            parts = torch.arange(len(known)).split(16)
            seen = [render(known.subset(part), [camera], size).rgb[:, 0] for part in parts]
            best = known.subset([int(distances(picture[None], torch.cat(seen)).argmin())])
            views.append(render(best, wanted(camera), size).rgb[0])
        return torch.stack(views)

    def sheet(self, samples, credit):
        """A row a kind: the given picture, the true views and the first seed's, from in front and
        from a camera of its own.
        """
        gap, rows = torch.ones_like(self.views[0, 0, 0]), {}
        for i in range(0, len(samples), TOYS):
            tiles = zip(self.views[i], samples[i, :, 0], strict=True)
            parts = ([given, *true, gap, *own, gap] for (given, *true), own in tiles)
            rows[self.toys.kinds[i]] = [*chain.from_iterable(parts)][:-1]
        heads = ["given", "true", "", "", "", "", "network's", "", "", "", ""] * 2
        title = "Given, from in front and from any camera; the true views; the network's"
        return sheet(rows, heads[:-1], title, credit, tile=0.5)


def wanted(given: Camera) -> tuple[Camera, ...]:
    """The four cameras that an exam asks for: to either side of the given one, and behind."""
    return orbit(4, 20.0, start=given.azimuth + 45.0)


def sample(
    prior: Prior,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    cfg: float,
    cameras: Sequence[Camera] | None = None,
) -> Tensor:
    """DDIM pictures of each prompt from the same seeds: (len(prompts), len(seeds), 3, H, W) in [0,
    1], on the CPU.

    cameras: one a seed, for a prior that takes the camera.
    """
    noise, samples = prior.noise(seeds), []
    for prompt in tqdm(prompts, **BAR):
        cond = prior.condition(prompt, camera=cameras)
        samples.append(ddim(prior, noise, cond, steps, cfg).images.cpu())
    return torch.stack(samples)


def share(right: Tensor) -> float:
    """The share of True."""
    return float(right.double().mean())


def mean_within(groups: Iterable[Tensor]) -> float:
    """The mean distance between the pictures (n, 3, H, W) of a group, averaged over groups."""
    values = [mean_pairwise(distances(group, group)) for group in groups]
    return sum(values) / len(values)


def by_view(groups: Iterable[Tensor]) -> Iterable[Tensor]:
    """Groups of things in several views (n, V, 3, H, W), as a group a view."""
    return (views for group in groups for views in group.unbind(1))


def to_nearest(pictures: Tensor, others: Tensor) -> Tensor:
    """The distance to the nearest in the same view, of (M, V, 3, H, W) among (N, V, 3, H, W): (V,
    M).
    """
    pairs = zip(pictures.unbind(1), others.unbind(1), strict=True)
    return torch.stack([distances(own, other).amin(1) for own, other in pairs])


@torch.no_grad()
def reconstruction(prior: Prior, pictures: Tensor) -> float:
    """PSNR in decibels of what the prior's autoencoder makes of pictures (N, 3, H, W)."""
    decoded = torch.cat([prior.decode(prior.encode(part)) for part in pictures.split(32)])
    return float(psnr(decoded[None], pictures[None]))  # of all pixels together
