"""The judge: a small network that names what a picture shows, and says so if it is spoiled.

A distance to the data is least for an average of the data. The judge has seen averages and blurred
pictures in its training, as a label of their own, so that they count as no picture of anything.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from ..checks import at_least, choice
from ..files import expanded
from ..priors import MODELS
from ..worlds.shipped import read_shipped
from .estimates import Estimate, bootstrap
from .pictures import check_pictures

SIDE = 32  # pixels; larger pictures are averaged over blocks
WIDTHS = (16, 48, 96)  # channels at 32, 16, and 8 and 4 pixels a side
WEIGHTS, CONFIG, CHECKSUMS = "judge.safetensors", "config.json", "checksums.sha256"


class JudgeNetwork(nn.Module):
    """Six convolutions, a mean over the picture, and a linear layer: a score for each of L labels,
    and one for "spoiled", the last.

    labels: the prompts, or kinds, that it knows. widths: its channels, multiples of 8.
    """

    def __init__(self, labels: Sequence[str], widths: Sequence[int] = WIDTHS):
        super().__init__()
        self.labels, self.widths = tuple(labels), tuple(widths)
        a, b, c = widths
        layers = ((3, a, 1), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1), (c, c, 2))
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.GroupNorm(8, o), nn.SiLU())
                for i, o, stride in layers
            )
        )
        self.head = nn.Linear(c, len(self.labels) + 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, L + 1), before a softmax, of pictures (B, 3, 32, 32) in [0, 1]."""
        return self.head(self.body(2 * images - 1).mean((2, 3)))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees of pictures (B, 3, H, W) in [0, 1]: float64 (B, C) on the CPU.

        For `precision_recall`, `coverage` and `kid`. Raises ValueError for other pictures.
        """
        found = [self.body(2 * part - 1).mean((2, 3)) for part in self._parts(images)]
        return torch.cat(found).cpu().double()

    @torch.no_grad()
    def named(self, images: Tensor, prompts: str | Sequence[str], top: int = 1) -> Tensor:
        """Whether each picture's label is among the judge's first `top`: bool (B,).

        images: (B, 3, H, W) in [0, 1]. prompts: the label of all, or one a picture. Raises
        ValueError for a label that the judge does not know, with the nearest, and for other
        pictures.
        """
        prompts = [prompts] * len(images) if isinstance(prompts, str) else list(prompts)
        if len(prompts) != len(images):
            raise ValueError(f"{len(images)} images but {len(prompts)} prompts; give one a picture")
        at_least("top", top)
        number = {name: i for i, name in enumerate(self.labels)}
        label = torch.tensor([number[choice("label", prompt, number)] for prompt in prompts])
        best = torch.cat([self(part).topk(top).indices.cpu() for part in self._parts(images)])
        return (best == label[:, None]).any(1)

    def _parts(self, images: Tensor, batch: int = 256) -> Sequence[Tensor]:
        """Pictures at the size, on the device and in the dtype of the network, some at a time."""
        check_pictures(tuple(images.shape[1:]), images=images)
        if images.shape[1] != 3 or min(images.shape[2:]) < SIDE:
            raise ValueError(
                f"the judge sees colour pictures of at least {SIDE} px a side, "
                f"got {tuple(images.shape)}"
            )
        return F.adaptive_avg_pool2d(images.detach().to(self.head.weight), SIDE).split(batch)


def label_accuracy(
    images: Tensor, prompts: str | Sequence[str], judge: JudgeNetwork, top: int = 1
) -> Estimate:
    """Share of pictures (B, 3, H, W) in [0, 1] that the judge takes for their prompt, with a
    bootstrap interval over pictures.

    Arguments and errors as of `JudgeNetwork.named`.
    """
    return bootstrap(judge.named(images, prompts, top))


@lru_cache
def load_judge(world: str | Path = "icons") -> JudgeNetwork:
    """The judge of a world, "icons" or "toybox", or one in a folder that `python -m
    dsd_lab.minis.train_judge` wrote, in float32. Raises ValueError if it is not there, or does not
    match its checksums.
    """
    folder = MODELS / f"{world}-judge"
    folder = folder if folder.is_dir() else expanded(world)
    remedy = f"python -m dsd_lab.minis.train_judge {world}"
    config, weights = (
        read_shipped(folder / name, folder / CHECKSUMS, remedy) for name in (CONFIG, WEIGHTS)
    )
    judge = JudgeNetwork(**json.loads(config))
    judge.load_state_dict(load(weights))
    return judge.requires_grad_(False).eval()
