"""Measure a mini of new views on toys that it never saw, and write its card: `dsd-lab quality
my-mini`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..cameras import orbit
from ..files import write_file
from ..inputs import input_view
from ..metrics import distances
from ..priors import NovelViewPrior
from ..sampling import ddim
from ..viz.pictures import sheet, small_png
from ..worlds import make_toys, render, toy_shop
from ..worlds.toybox.world import KINDS
from .card import checksums, megabytes, millions
from .exams import mean_within, reconstruction, share
from .novel_view import GIVEN

ASKED = orbit(4, 20.0, start=45.0)  # front right, back right, back left, front left
FIRST, TOYS = 200, 2  # seeds that no training has used, and toys a kind


@dataclass(frozen=True)
class NovelViewQuality:
    """What DDIM views of toys that were never trained on are worth. PSNR in decibels, against the
    true views.

    psnr: of the samples. same_psnr: of the given picture in the place of every view, and known_psnr
    of the training's toy of that kind that looks most like the picture: what not turning, and only
    remembering, would give. view: share of samples that are nearest to the view asked for, of the
    four of their toy. near, behind: distance between the samples of two seeds, RMSE per channel,
    from the two cameras on the seen side and the two on the unseen side, where more is open.
    reconstruction: PSNR of the autoencoder.
    """

    toys: int
    samples: int
    steps: int
    cfg: float
    psnr: float
    same_psnr: float
    known_psnr: float
    view: float
    near: float
    behind: float
    reconstruction: float


def measure(
    prior: NovelViewPrior,
    steps: int = 25,
    cfg: float = 2.0,
    seeds: tuple[int, ...] = (0, 1),
    progress: Callable[[int], None] | None = None,
) -> tuple[NovelViewQuality, dict[str, Tensor]]:
    """Measure; also returns the pictures: "given" (N, 3, H, W), "true" (N, 4, 3, H, W), "made" (N,
    seeds, 4, 3, H, W).
    """
    toys = make_toys(
        [kind for kind in KINDS for _ in range(TOYS)], list(range(FIRST, FIRST + TOYS)) * len(KINDS)
    )
    shown = render(toys, (GIVEN, *ASKED), prior.picture_size).rgb
    given, true, made = shown[:, 0], shown[:, 1:], []
    noise = prior.noise([seed for seed in seeds for _ in ASKED])
    for picture in given:
        cond = prior.condition(
            input_view(picture, GIVEN, prior.picture_size), camera=ASKED * len(seeds)
        )
        made.append(
            ddim(prior, noise, cond, steps, cfg).images.unflatten(0, (len(seeds), len(ASKED)))
        )
        if progress:
            progress(len(made))
    made = torch.stack(made)
    known = toy_shop().toys
    guess = []
    for i, kind in enumerate(KINDS):
        alike = [j for j, other in enumerate(known.kinds) if other == kind]
        own = render(known.subset(alike), (GIVEN, *ASKED), prior.picture_size).rgb
        guess.append(own[distances(given[TOYS * i : TOYS * (i + 1)], own[:, 0]).argmin(1), 1:])

    def decibels(pictures):
        return float(-10 * (pictures - true).square().mean((-3, -2, -1)).log10().mean())

    between = torch.stack(
        [distances(views.flatten(0, 1), own) for views, own in zip(made, true, strict=True)]
    )
    told = between.argmin(2).unflatten(1, (len(seeds), len(ASKED)))
    return NovelViewQuality(
        toys=len(toys),
        samples=told.numel(),
        steps=steps,
        cfg=cfg,
        psnr=sum(decibels(made[:, k]) for k in range(len(seeds))) / len(seeds),
        same_psnr=decibels(given[:, None].expand_as(true)),
        known_psnr=decibels(torch.cat(guess)),
        view=share(told == torch.arange(len(ASKED))),
        near=mean_within(own[:, v] for own in made for v in (0, 3)),
        behind=mean_within(own[:, v] for own in made for v in (1, 2)),
        reconstruction=reconstruction(prior, given),
    ), {"given": given, "true": true, "made": made}


CARD = """---
license: cc-by-4.0
library_name: diffusers
pipeline_tag: image-to-3d
---
# {name}

A small network of new views in the shape of Zero-1-to-3 ([arXiv 2303.11328](https://arxiv.org/abs/2303.11328)): given one picture
of a toy, and where another camera stands relative to the picture's, what does that camera see? A UNet that sees the picture's
latents beside the noisy ones, an image encoder, a projection of its embedding and the pose to the one token that the UNet attends
to, an autoencoder (64x64 pixels to 16x16x4 latents), and a DDIM scheduler ({prediction}), laid out as diffusers' conversion is.
Unlike Zero-1-to-3's, its UNet, which attends at one size alone, is told the pose in a class embedding too.

```python
import dsd_lab
prior = dsd_lab.load_prior("{name}")
cond = prior.condition(image="toy.png", camera=dsd_lab.Camera(azimuth=135))
picture = dsd_lab.ddim(prior, prior.noise([0]), cond, steps={steps}, cfg={cfg:g}).images[0]
scene = dsd_lab.image_to_3d(prior, "toy.png", seed=0)
```

![Samples](samples.png)

The given picture, the true views, and DDIM's for the same cameras, from one seed ({steps} steps, guidance {cfg:g}). The first toy
of each kind with seed {first}; none was trained on, and none was chosen.

## Data and licence
{pictures} renders of {toys_trained} procedural toys, groups of three that differ in nothing but their back among them: from in
front, 20 degrees above, which is the picture that is given, and from random cameras at distance 3, from 10 degrees below to 45
above. {credit} The autoencoder is `{autoencoder}`'s, as it is; its
weights come under the terms of what it was trained on: see that model's card. All else: Apache-2.0.

## Training
`dsd-lab train {data} --out {name}`: {network_steps} steps of {batch} pairs of views, {minutes:.0f} minutes on {hardware}. The
UNet starts as `{start}`'s, as Zero-1-to-3's started as Stable Diffusion's. Adam, learning rate {lr:g}, min-SNR weighting (gamma
{min_snr:g}), exponential averages of the weights (decay {ema:g}); in {drop:.0%} of the pairs picture and pose
are left out. {parameters:.1f} million parameters, {size:.1f} MB in half precision.

## Measured
`dsd-lab quality {name}`: {toys} toys that it never saw, the picture from in front and 20 degrees above, {samples} DDIM samples of
four other cameras, {steps} steps, guidance {cfg:g}.

| | |
|---|---|
| PSNR against the true views | {psnr:.1f} dB |
| the same, if the picture is not turned at all | {same_psnr:.1f} dB |
| the same, for the trained toy of that kind that looks most like the picture | {known_psnr:.1f} dB |
| nearest to the view asked for, of four | {view:.1%} |
| RMSE between two seeds, seen side | {near:.3f} |
| RMSE between two seeds, unseen side | {behind:.3f} |
| autoencoder's reconstruction | {reconstruction:.1f} dB |

## Limits
It knows toys of {kinds} kinds before white, pictures taken from in front and 20 degrees above, cameras at one distance and field
of view, and nothing of the world. It is a teaching model.
"""


def write_card(
    prior: NovelViewPrior, measured: NovelViewQuality, shown: dict[str, Tensor], folder: Path
) -> None:
    """Write README.md, samples.png, quality.json and checksums.sha256 into the mini's folder."""
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    recipe = facts["recipe"]
    write_file(folder / "samples.png", small_png(samples_sheet(shown, facts["credit"])))
    write_file(folder / "quality.json", json.dumps(asdict(measured), indent=1) + "\n")
    modules = (prior.unet, prior.vae, prior.network.image_encoder, prior.network.projection)
    write_file(
        folder / "README.md",
        CARD.format(
            **{
                **recipe,
                **facts,
                **asdict(measured),
                "name": prior.name,
                "network_steps": recipe["steps"],
                "steps": measured.steps,
                "minutes": facts["minutes"]["network"],
                "toys_trained": facts["toys"],
                "first": FIRST,
                "kinds": len(KINDS),
                "prediction": recipe["prediction"].replace("_", " "),
                "parameters": millions(modules),
                "size": megabytes(folder),
            }
        ),
    )
    write_file(folder / "checksums.sha256", checksums(folder))


def samples_sheet(shown: dict[str, Tensor], credit: str) -> Figure:
    """A row a kind: the given picture, the true views, and the first seed's."""
    gap = torch.ones_like(shown["given"][0])
    rows = {
        kind: [shown["given"][i], gap, *shown["true"][i], gap, *shown["made"][i, 0]]
        for kind, i in zip(KINDS, range(0, len(shown["given"]), TOYS), strict=True)
    }
    turns = [f"{camera.azimuth % 360:g}°" for camera in ASKED]
    return sheet(
        rows,
        ["given", "", *turns, "", *turns],
        "Given; the true views; the network's",
        credit,
        tile=0.6,
    )
