"""Train and examine the judge of `metrics.judge_network`: `python -m dsd_lab.minis.train_judge
icons`.

Its split, its seed and its network were fixed before any method was judged by it. The command goes
on where it stopped; it writes the weights, what was measured, a card and checksums.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from accelerate import PartialState
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import sample_cameras
from ..checks import choice
from ..command import run_module
from ..draws import generator_of
from ..files import prepare_folder, write_file, write_json, write_whole
from ..metrics import kid, precision_recall
from ..metrics.judge_network import (
    CHECKSUMS,
    CONFIG,
    SIDE,
    WEIGHTS,
    JudgeNetwork,
    label_accuracy,
    load_judge,
)
from ..priors import MODELS
from ..worlds import icons, make_toys, render
from ..worlds.shipped import checksum
from ..worlds.toybox.toys import with_article
from ..worlds.toybox.world import CREDIT, KINDS
from .card import CARDS
from .parts import seeded
from .recipe import Recipe
from .training import Training

SEED = 11  # of the split, the weights and the draws; the minis have 0
KEPT_BACK = 0.25  # share of each label's pictures, or toys, that the training does not see
RECIPE = Recipe(steps=2000, batch=64, lr=2e-3, ema=0.995, seed=SEED)
FIRST_TOY, TOYS, VIEWS = 2000, 24, 8  # toys a kind that no mini has seen, and views of each
BLUR = (1.2, 3.0)  # pixels of the standard deviation with which spoiled pictures are blurred


@dataclass(frozen=True, eq=False)
class Pictures:
    """What a judge learns from: N pictures with labels.

    pixels: uint8 (N, 3, 32, 32). label: int64 (N,) into `names`. group: int64 (N,), of pictures
    that go to one side of the split together. credit: whose pictures.
    """

    name: str
    names: tuple[str, ...]
    pixels: Tensor
    label: Tensor
    group: Tensor
    credit: str

    @classmethod
    def of(cls, world: str) -> Pictures:
        """Those of "icons", each its own group, or of "toybox": toys from random cameras, grouped
        by toy. Raises ValueError for another world.
        """
        if choice("world", world, ("icons", "toybox")) == "icons":
            w = icons(SIDE)
            return cls(world, w.prompts, w.pixels, w.label, torch.arange(len(w)), w.credit)
        numbers, pixels = torch.arange(len(KINDS)).repeat_interleave(TOYS), []
        seeds = [FIRST_TOY + i for _ in KINDS for i in range(TOYS)]
        toys, generator = make_toys([KINDS[k] for k in numbers], seeds), generator_of(SEED, "toys")
        for part in torch.arange(len(toys)).split(8):  # they share cameras
            views = render(toys.subset(part), sample_cameras(VIEWS, generator)).rgb
            pixels.append(F.adaptive_avg_pool2d(views.flatten(0, 1), SIDE))
        pixels = (torch.cat(pixels) * 255).round().byte()
        label, group = (x.repeat_interleave(VIEWS) for x in (numbers, torch.arange(len(toys))))
        return cls(world, tuple(map(with_article, KINDS)), pixels, label, group, CREDIT)

    @cached_property
    def kept_back(self) -> Tensor:
        """Which pictures are held out, of each label a quarter of its groups: bool (N,)."""
        generator, back = generator_of(SEED, "split"), torch.zeros(len(self.label)).bool()
        for label in range(len(self.names)):
            groups = self.group[self.label == label].unique()
            order = groups[torch.randperm(len(groups), generator=generator)]
            back |= torch.isin(self.group, order[: round(KEPT_BACK * len(groups))])
        return back

    def part(self, kept_back: bool) -> tuple[Tensor, Tensor]:
        """The pictures of one side of the split, float32 in [0, 1], and their labels."""
        here = self.kept_back == kept_back
        return self.pixels[here].float() / 255, self.label[here]

    def identity(self) -> dict[str, str]:
        """What tells these pictures and this split from any other."""
        parts = (self.pixels, self.label, self.kept_back)
        digests = (hashlib.sha256(part.numpy().tobytes()).hexdigest()[:16] for part in parts)
        return {"data": self.name, **dict(zip(("pixels", "label", "split"), digests, strict=True))}


# ---- what a step learns from ---------------------------------------------------------------------


def batch_of(
    pictures: Tensor, label: Tensor, spoiled: int, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` pictures, each label as likely as any other, varied, and what they show.

    A tenth are averages, and a tenth blurred: their label is the number `spoiled`.
    """
    weight = 1 / label.bincount()[label].float()
    i = torch.multinomial(weight, count, replacement=True, generator=generator)
    few = count // 10
    averages = averaged(pictures, label, label[i[:few]], draw(3, 5, generator), generator)
    x, target = vary(torch.cat([averages, pictures[i[few:]]]), generator), label[i]
    low, high = BLUR
    width = low + (high - low) * float(torch.rand((), generator=generator))
    x[few : 2 * few] = blur(x[few : 2 * few], width)
    return x, torch.where(torch.arange(count) < 2 * few, spoiled, target)


def draw(low: int, high: int, generator: torch.Generator) -> int:
    """A number from low to high - 1."""
    return int(torch.randint(low, high, (), generator=generator))


def averaged(
    pictures: Tensor, label: Tensor, wanted: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Means of `count` different pictures of a label, or of all it has: (B, 3, H, W) for wanted
    (B,).
    """
    scores = torch.rand(len(wanted), len(label), generator=generator)
    scores, best = scores.masked_fill(label != wanted[:, None], -1).topk(count)
    weight = (scores >= 0).float()
    weight = weight / weight.sum(1, keepdim=True)
    return torch.einsum("bn,bnchw->bchw", weight, pictures[best]).clamp(0, 1)


def blur(images: Tensor, width: float) -> Tensor:
    """Pictures (B, 3, S, S) blurred by a Gaussian with a standard deviation of `width` pixels."""
    place = torch.arange(images.shape[-1]).float()
    weight = torch.softmax(-((place[:, None] - place) ** 2) / (2 * width**2), dim=1)
    return (weight @ images @ weight.T).clamp(0, 1)


def vary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture mirrored or not, shifted by up to a tenth of its side, 0.85 to 1.15 times as
    large, and with other colours on the same white.
    """
    n = len(images)
    u = 2 * torch.rand(n, 8, generator=generator) - 1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = (1 + 0.15 * u[:, 0]) * u[:, 1].sign()
    theta[:, 1, 1] = 1 + 0.15 * u[:, 0]
    theta[:, :, 2] = 0.2 * u[:, 2:4]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    ink = F.grid_sample(1 - images, grid, align_corners=False)  # outside is white
    grey = ink.mean(1, keepdim=True)
    ink = grey + (1 + 0.4 * u[:, 4, None, None, None]) * (ink - grey)
    return 1 - (ink * (1 + 0.2 * u[:, 5:8, None, None])).clamp(0, 1)


def loss(
    pictures: Tensor, label: Tensor, network: JudgeNetwork, generator: torch.Generator
) -> Tensor:
    """Cross entropy with a tenth of the weight on all labels alike."""
    spoiled = len(network.labels)
    x, target = batch_of(pictures, label, spoiled, RECIPE.batch, generator)
    return F.cross_entropy(network(x), target, label_smoothing=0.1)


# ---- what it is worth ----------------------------------------------------------------------------


def examine(judge: JudgeNetwork, pictures: Pictures) -> dict[str, dict[str, list[float]]]:
    """What the judge says of held-out pictures as they are, and spoiled so that it should mark them
    down.

    For each: accuracy and top5, and precision, recall and kid in its features against the pictures
    it was trained on, every value with its interval. Blurred by 1.6 px and averages of four are
    what it was trained to notice; averages of two and pictures enlarged from 8 px are new to it.
    """
    (data, _), (held, label) = (pictures.part(side) for side in (False, True))
    generator = generator_of(SEED, "exam")
    every, all_labels = pictures.pixels.float() / 255, pictures.label
    mean_of = partial(averaged, every, all_labels, label, generator=generator)
    small = F.adaptive_avg_pool2d(held, 8)
    sets = {
        "as they are": held,
        "blurred by 1.6 px": blur(held, 1.6),
        "averages of four": mean_of(count=4),
        "averages of two": mean_of(count=2),
        "enlarged from 8 px": F.interpolate(small, size=SIDE, mode="bilinear").clamp(0, 1),
    }
    names = [pictures.names[k] for k in label]
    found = {}
    for name, images in sets.items():
        shares = precision_recall(images, data, features=judge.features)
        found[name] = {
            "accuracy": label_accuracy(images, names, judge),
            "top5": label_accuracy(images, names, judge, top=5),
            "precision": shares.precision,
            "recall": shares.recall,
            "kid": kid(images, data, features=judge.features),
        }
    return found


def write(network: nn.Module, pictures: Pictures, minutes: float, folder: Path) -> None:
    """Write the judge in half precision, its checksums, what it is worth, and its card."""
    weights = {k: v.half().contiguous() for k, v in network.state_dict().items()}
    write_whole(folder / WEIGHTS, lambda place: save_file(weights, place))
    write_json(folder / CONFIG, {"labels": network.labels, "widths": network.widths})
    lines = (checksum((folder / name).read_bytes(), name) + "\n" for name in (WEIGHTS, CONFIG))
    write_file(folder / CHECKSUMS, "".join(lines))
    facts = {
        "world": pictures.name,
        "pictures": len(pictures.label),
        "held_out": int(pictures.kept_back.sum()),
        "parameters": sum(w.numel() for w in weights.values()),
        "minutes": round(minutes, 1),
        "measured": examine(load_judge(folder), pictures),
    }
    write_json(folder / "quality.json", facts)
    write_file(folder / "README.md", card(facts, pictures.credit))


def card(facts: dict, credit: str) -> str:
    """The text of a judge's card."""
    environment = Environment(
        loader=FileSystemLoader(CARDS), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["number"] = format
    return environment.get_template("judge.md.jinja").render(
        facts=facts, credit=credit, recipe=RECIPE, first_toy=FIRST_TOY, toys=TOYS, views=VIEWS
    )


def main(
    world: Annotated[str, typer.Argument(help='"icons" or "toybox".')],
    out: Annotated[Path | None, typer.Option(help="Its folder; by default the package's.")] = None,
    work: Annotated[Path, typer.Option(help="Where the checkpoint is kept.")] = Path(
        "results/judge"
    ),
) -> None:
    """Train the judge of a world, or go on with it, and write it."""
    pictures = Pictures.of(world)
    folder = prepare_folder(out or MODELS / f"{world}-judge")
    with seeded(SEED):
        network = JudgeNetwork(pictures.names)
    header = pictures.identity() | {"steps": RECIPE.steps, "widths": network.widths}
    training = Training(
        world, network, RECIPE.steps, RECIPE.lr, RECIPE, prepare_folder(work), header
    )
    training.run(partial(loss, *pictures.part(False)), PartialState(cpu=True), every=500)
    write(training.averaged, pictures, training.seconds / 60, folder)
    measured = json.loads((folder / "quality.json").read_text())["measured"]
    for name, values in measured.items():
        typer.echo(f"{name:<20}" + ", ".join(f"{k} {v[0]:.3f}" for k, v in values.items()))


if __name__ == "__main__":
    run_module(main)
