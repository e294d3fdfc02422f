"""Measure a mini against the pictures it was trained on, and write its model card: `dsd-lab quality icons-mini`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .metrics import distances, mean_pairwise, precision_recall
from .priors import PipelinePrior
from .report import write_file
from .sampling import ddim

NEAR_COPY = 0.05  # RMSE under which a sample counts as a copy of a training picture


@dataclass(frozen=True)
class Quality:
    """What DDIM samples of all prompts are worth, next to the world's pictures. Distances are RMSE per channel.

    accuracy: share of samples whose nearest labelled picture has the prompt's label. data_accuracy: the same for the
    pictures themselves, each left out in turn, which says how hard the question is. distance: to the nearest picture of the
    prompt. near_copies: share of samples closer than `NEAR_COPY` to a training picture. precision, recall: of the samples
    against the data (arXiv 1904.06991, in pixels). pairwise, data_pairwise: between samples, and between pictures, of one
    prompt, averaged over prompts. reconstruction: PSNR of the autoencoder on all pictures, in decibels.
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


def sample(prior: PipelinePrior, prompts: Sequence[str], seeds: Sequence[int], steps: int, cfg: float,
           progress: Callable[[int], None] | None = None) -> Tensor:
    """DDIM pictures of each prompt from the same seeds: (len(prompts), len(seeds), 3, H, W) in [0, 1]."""
    noise, made = prior.noise(seeds), []
    for prompt in prompts:
        made.append(ddim(prior, noise, prior.condition(prompt), steps, cfg).images)
        if progress:
            progress(len(made))
    return torch.stack(made)


def quality(prior: PipelinePrior, seeds: Sequence[int] = range(8), steps: int = 25, cfg: float = 4.0,
            progress: Callable[[int], None] | None = None) -> tuple[Quality, Tensor]:
    """Measure samples of every prompt of the prior's world; also returns them, (P, S, 3, H, W).

    Raises ValueError for a prior that does not know its world.
    """
    if prior.world is None:
        raise ValueError(f"{prior.name} does not know the pictures it was trained on: there is nothing to compare with")
    world, n = prior.world, len(list(seeds))
    pictures = world.images()
    made = sample(prior, world.prompts, seeds, steps, cfg, progress)
    label = torch.arange(len(world.prompts)).repeat_interleave(n)
    between = distances(made.flatten(0, 1), pictures)
    own = distances(pictures, pictures).fill_diagonal_(torch.inf)
    among = between.masked_fill(world.label[None] != label[:, None], torch.inf)
    with torch.no_grad():
        again = torch.cat([prior.decode(prior.encode(part)) for part in pictures.split(32)])
    shares = precision_recall(made.flatten(0, 1), pictures)
    return Quality(
        prompts=len(world.prompts), samples=len(label), steps=steps, cfg=cfg,
        accuracy=float((world.label[between.argmin(1)] == label).double().mean()),
        data_accuracy=float((world.label[own.argmin(1)] == world.label).double().mean()),
        distance=float(among.amin(1).mean()), near_copies=float((between.amin(1) < NEAR_COPY).double().mean()),
        precision=shares.precision.value, recall=shares.recall.value,
        pairwise=sum(mean_pairwise(distances(part, part)) for part in made) / len(made),
        data_pairwise=sum(mean_pairwise(distances(part, part)) for part in map(world.images, world.prompts)) / len(made),
        reconstruction=float(-10 * (again - pictures).square().mean().log10())), made


def seconds_a_prediction(prior: PipelinePrior, batch: int = 16, repeats: int = 20) -> float:
    """Seconds for one picture's prediction in a batch, the median of some calls."""
    x, cond, times = prior.noise(range(batch)), prior.condition(prior.prompts[0]), []
    for _ in range(repeats + 3):
        began = time.perf_counter()
        prior.predict(x, 500, cond, ("cond",))
        times.append(time.perf_counter() - began)
    return sorted(times[3:])[repeats // 2] / batch


CARD = """---
license: {licence}
library_name: diffusers
pipeline_tag: text-to-image
---
# {name}

A complete text-to-image pipeline in miniature, in the shape of Stable Diffusion: tokenizer, text encoder, autoencoder
(64x64 pixels to 16x16x4 latents), UNet and DDIM scheduler ({prediction}). It is made for lessons on score distillation: the
code that runs on it runs on a full-size pipeline.

```python
import dsd_lab
prior = dsd_lab.load_prior("{name}")

from diffusers import StableDiffusionPipeline                  # or without this project
pipe = StableDiffusionPipeline.from_pretrained("path/to/{name}", safety_checker=None)
pipe("a dragon", height=64, width=64, guidance_scale={cfg:g}).images[0]
```

![Samples](samples.png)

One DDIM sample of every prompt from the same starting noise ({steps} steps, guidance {cfg:g}); none was chosen.

## Data and licence
{pictures} pictures, the world `{data}`, under {prompts} prompts. {credit} Each picture was also seen blurred, in {blurry:.0%} of
the training steps, under its prompt with the word "blurry". The weights come under the same terms as the drawings; keep the
credit line under pictures made with them.

## Training
`dsd-lab train {data} --out {name}`: the autoencoder {autoencoder_steps} steps of {autoencoder_batch} pictures,
{autoencoder_minutes:.0f} minutes; then the text encoder and the UNet together {network_steps} steps of {batch}, {minutes:.0f}
minutes; on {hardware}. Adam, learning rates {autoencoder_lr:g} and {lr:g}, min-SNR weighting (gamma {min_snr:g}), exponential
averages of the weights (decay {ema:g}). {parameters:.1f} million parameters, {size:.1f} MB in half precision.

## Measured
`dsd-lab quality {name}`: {samples} DDIM samples, 8 for each prompt, {steps} steps, guidance {cfg:g}. Distances are RMSE per
channel with pictures in [0, 1].

| | samples | pictures |
|---|---|---|
| nearest labelled picture has the prompt's label | {accuracy:.1%} | {data_accuracy:.1%} (each left out in turn) |
| closer than {near:g} to a training picture | {near_copies:.1%} | |
| distance to the nearest picture of the prompt | {distance:.3f} | |
| distance between two of one prompt | {pairwise:.3f} | {data_pairwise:.3f} |
| precision, recall (3 neighbours, pixels) | {precision:.2f}, {recall:.2f} | |
| autoencoder's reconstruction | | {reconstruction:.1f} dB |

## Limits
It knows the {prompts} prompts that it was trained on and nothing else: a word that it never saw is an error in `dsd_lab`, and
silently an unknown token in plain diffusers. With so few pictures it partly remembers them; the share of near-copies says how
often. It is a teaching model, not an image generator.
"""


def write_card(prior: PipelinePrior, measured: Quality, samples: Tensor, folder: Path) -> None:
    """Write README.md, samples.png, quality.json and checksums.sha256 into a mini's folder.

    samples: (P, S, 3, H, W); the first of each prompt is shown.
    """
    from .viz.pictures import sheet, small_png

    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    recipe, across = facts["recipe"], 12
    rows = {" " * k: samples[i:i + across, 0] for k, i in enumerate(range(0, len(samples), across))}
    figure = sheet(rows, title="One sample of every prompt", credit=facts["credit"], tile=0.7)
    write_file(folder / "samples.png", small_png(figure))
    write_file(folder / "quality.json", json.dumps(asdict(measured), indent=1) + "\n")
    weights = sorted(folder.rglob("*.safetensors"))
    weights = [file for file in weights if "checkpoint" not in file.parts]
    write_file(folder / "README.md", CARD.format(**{
        **recipe, **facts, **asdict(measured), "name": prior.name, "network_steps": recipe["steps"], "near": NEAR_COPY,
        "steps": measured.steps, "autoencoder_minutes": facts["minutes"]["autoencoder"], "minutes": facts["minutes"]["network"],
        "prediction": recipe["prediction"].replace("_", " "), "licence": "cc-by-4.0",
        "parameters": sum(p.numel() for m in (prior.unet, prior.vae, prior.pipe.text_encoder) for p in m.parameters()) / 1e6,
        "size": sum(file.stat().st_size for file in weights) / 1e6}))
    files = [*weights, folder / "model_index.json"]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}" for file in files]
    write_file(folder / "checksums.sha256", "\n".join(lines) + "\n")
