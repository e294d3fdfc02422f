"""The model card of a mini: README.md with what was measured, a sheet of samples, and checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..files import write_file
from ..priors import MODELS, PipelinePrior
from ..viz.pictures import sheet, small_png
from ..worlds.toybox.world import COLOURS, KINDS
from .exams import NEAR_COPY, UNSEEN, VIEWS, Quality, ViewQuality, colour_and_kind
from .text_to_image import held_out_pairs

CARD = """---
license: {licence}
library_name: diffusers
pipeline_tag: text-to-image
---
# {name}

A complete text-to-image pipeline in miniature, in the shape of Stable Diffusion: tokenizer, text encoder, autoencoder
(64x64 pixels to 16x16x4 latents), UNet and DDIM scheduler ({prediction}).{also} It is made for lessons on score
distillation: the code that runs on it runs on a full-size pipeline.

```python
{use}
```

![Samples](samples.png)

{shown} ({steps} steps, guidance {cfg:g}); none was chosen.

## Data and licence
{pictures} pictures, the world `{data}`, under {prompts} prompts. {credit} Each picture was also seen blurred, in {blurry:.0%} of
the training steps, under its prompt with the word "blurry". {terms}

## Training
`dsd-lab train {data} --out {name}`: {autoencoder};
the text encoder and the UNet together {network_steps} steps of {batch}, {minutes:.0f} minutes; on {hardware}.
Adam, learning rate {lr:g}, min-SNR weighting (gamma {min_snr:g}), exponential averages of the weights (decay {ema:g}).
{parameters:.1f} million parameters, {size:.1f} MB in half precision.

## Measured
`dsd-lab quality {name} --steps {steps} --cfg {cfg:g}`: {samples} DDIM samples, {each}.
Distances are RMSE per channel with pictures in [0, 1].

{table}

## Limits
It knows {knows} and nothing else: a word that it never saw is an error in `dsd_lab`, and silently an unknown token in plain
diffusers. {limits} It is a teaching model, not an image generator.
"""

OF_PICTURES = {
    "also": "",
    "each": "8 for each prompt",
    "knows": "the {prompts} prompts that it was trained on",
    "use": """import dsd_lab
prior = dsd_lab.load_prior("{name}")

from diffusers import StableDiffusionPipeline                  # or without this project
pipe = StableDiffusionPipeline.from_pretrained("path/to/{name}", safety_checker=None)
pipe("{example}", height=64, width=64, guidance_scale={cfg:g}).images[0]""",
    "shown": "One DDIM sample of every prompt from the same starting noise",
    "terms": """The weights come under the same terms as the pictures; keep the
credit line under pictures made with them.""",
    "limits": """With so few pictures it partly remembers them; the share of
near-copies says how often.""",
    "table": """| | samples | pictures |
|---|---|---|
| nearest labelled picture has the prompt's label | {accuracy:.1%} | {data_accuracy:.1%} (each left out in turn) |
| closer than {near:g} to a training picture | {near_copies:.1%} | |
| distance to the nearest picture of the prompt | {distance:.3f} | |
| distance between two of one prompt | {pairwise:.3f} | {data_pairwise:.3f} |
| precision, recall (3 neighbours, pixels) | {precision:.2f}, {recall:.2f} | |
| autoencoder's reconstruction | | {reconstruction:.1f} dB |""",
}

OF_VIEWS = {
    "also": """
Beside the prompt it is told the camera: eight numbers, which the UNet takes as its class label.""",
    "each": "of every prompt 2 from each of 4 cameras",
    "knows": "{kinds} kinds of toys in {colours} colours",
    "use": """import dsd_lab
from dsd_lab.cameras import Camera
prior = dsd_lab.load_prior("{name}")
cond = prior.condition("{example}", camera=Camera(azimuth=30, elevation=15))
picture = dsd_lab.ddim(prior, prior.noise([0]), cond, steps={steps}, cfg={cfg:g}).images[0]

from functools import partial                                  # or in diffusers' own pipeline
from dsd_lab.priors.pipeline import camera_vector
pipe = prior.pipe
pipe.unet.forward = partial(pipe.unet.forward, class_labels=camera_vector([Camera(azimuth=30, elevation=15)]))
pipe("{example}", height=64, width=64, guidance_scale={cfg:g}).images[0]""",
    "shown": """Left of the gap, each kind from four cameras; right of it, in every colour, with a frame around the pairs of
colour and kind that training left out. DDIM from one starting noise""",
    "terms": """The renders and what was learned from
them: Apache-2.0.{borrowed}""",
    "limits": """It has seen cameras at distance 3 with a field of view of 40 degrees, from 10 degrees below to
45 above, and follows them as far as the table says; guidance strengthens the words, not the camera.""",
    "table": """Judged by {unseen} true toys that no training has seen, rendered from the same camera: a sample's kind is that of
the nearest by RMSE, its colour that of the nearest histogram of colours. The right column judges these toys by each other.

| | samples | true toys |
|---|---|---|
| "a chair": the right kind | {kind:.1%} | {data_kind:.1%} |
| "a red chair", seen in training: the right kind | {seen_kind:.1%} | |
| the right colour | {seen_colour:.1%} | {data_colour:.1%} |
| pairs of colour and kind that training left out: the right kind | {held_out_kind:.1%} | |
| the right colour | {held_out_colour:.1%} | |
| the side asked for, of four | {view:.1%} | {data_view:.1%} |
| closer than {near:g} to a toy of the training | {near_copies:.1%} | |
| distance to the nearest toy of the training | {distance:.3f} | {data_distance:.3f} |
| distance between two of one kind | {pairwise:.3f} | {data_pairwise:.3f} |
| autoencoder's reconstruction | | {reconstruction:.1f} dB |""",
}

TRAINED = (
    "the autoencoder {autoencoder_steps} steps of {autoencoder_batch} pictures, learning rate {autoencoder_lr:g}, "
    "{autoencoder_minutes:.0f} minutes"
)
TAKEN = "the autoencoder is that of `{autoencoder}`, as it is"
BORROWED = """ The autoencoder is `{autoencoder}`'s; its weights come under
the terms of the pictures that it was trained on: {its_credit}"""


def write_card(
    prior: PipelinePrior, measured: Quality | ViewQuality, samples: Tensor, folder: Path
) -> None:
    """Write README.md, samples.png, quality.json and checksums.sha256 into a mini's folder.

    samples: as `measure` returns them.
    """
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    recipe, of_views = facts["recipe"], isinstance(measured, ViewQuality)
    autoencoder = recipe.get("autoencoder")
    figure = (views_sheet if of_views else pictures_sheet)(prior, samples, facts["credit"])
    write_file(folder / "samples.png", small_png(figure))
    write_file(folder / "quality.json", json.dumps(asdict(measured), indent=1) + "\n")
    texts = OF_VIEWS if of_views else OF_PICTURES
    values = {
        **recipe,
        **facts,
        **asdict(measured),
        "name": prior.name,
        "network_steps": recipe["steps"],
        "near": NEAR_COPY,
        "steps": measured.steps,
        "autoencoder_minutes": facts["minutes"]["autoencoder"],
        "minutes": facts["minutes"]["network"],
        "prediction": recipe["prediction"].replace("_", " "),
        "example": prior.prompts[len(prior.prompts) // 4],
        "licence": "apache-2.0" if of_views and not autoencoder else "cc-by-4.0",
        "kinds": len(KINDS),
        "colours": len(COLOURS),
        "unseen": UNSEEN * len(KINDS),
        "borrowed": BORROWED.format(autoencoder=autoencoder, its_credit=credit_of(autoencoder))
        if autoencoder
        else "",
        "parameters": millions((prior.unet, prior.vae, prior.pipe.text_encoder)),
        "size": megabytes(folder),
    }
    values |= {name: text.format(**values) for name, text in texts.items()}
    values["autoencoder"] = (TAKEN if autoencoder else TRAINED).format(**values)
    write_file(folder / "README.md", CARD.format(**values))
    write_file(folder / "checksums.sha256", checksums(folder))


def weight_files(folder: Path) -> list[Path]:
    """A pipeline folder's weights, without a training's checkpoints."""
    return [
        file
        for file in sorted(folder.rglob("*.safetensors"))
        if "checkpoint" not in file.relative_to(folder).parts
    ]


def megabytes(folder: Path) -> float:
    """The size of a folder's weights."""
    return sum(file.stat().st_size for file in weight_files(folder)) / 1e6


def millions(modules: Iterable[nn.Module]) -> float:
    """How many million parameters networks have."""
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


def checksums(folder: Path) -> str:
    """A line for each weight file and for the index: its SHA-256 and its name."""
    files = [*weight_files(folder), folder / "model_index.json"]
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}"
        for file in files
    ]
    return "\n".join(lines) + "\n"


def credit_of(mini: str) -> str:
    """Whose pictures a shipped mini, or a pipeline's folder, was trained on, as far as it says."""
    note = (MODELS / mini if (MODELS / mini).is_dir() else Path(mini)) / "training.json"
    return (
        json.loads(note.read_text(encoding="utf-8"))["credit"]
        if note.is_file()
        else "see that model's card."
    )


def pictures_sheet(prior: PipelinePrior, samples: Tensor, credit: str) -> Figure:
    """The first sample (P, S, 3, H, W) of every prompt, twelve in a row."""
    rows = {" " * k: samples[i : i + 12, 0] for k, i in enumerate(range(0, len(samples), 12))}
    return sheet(rows, title="One sample of every prompt", credit=credit, tile=0.7)


def views_sheet(prior: PipelinePrior, samples: Tensor, credit: str) -> Figure:
    """A row a kind: from all `VIEWS`, then in all colours, held-out pairs framed; the first of
    samples (P, S, V, 3, H, W).
    """
    first = dict(zip(map(colour_and_kind, prior.world.prompts), samples[:, 0], strict=True))
    held_out = held_out_pairs()
    gap = torch.ones_like(samples[0, 0, 0])

    def tile(pair):
        picture = first[pair][0].clone() if pair in first else gap
        if pair in held_out:
            for edge in (picture[:, :2], picture[:, -2:], picture[:, :, :2], picture[:, :, -2:]):
                edge.fill_(0.0)
        return picture

    rows = {
        kind: [*first["", kind], gap, *(tile((colour, kind)) for colour in COLOURS)]
        for kind in KINDS
        if ("", kind) in first
    }
    heads = [*(f"{camera.azimuth % 360:g}°" for camera in VIEWS), "", *COLOURS]
    return sheet(rows, heads, "Every kind from four sides, and in every colour", credit, tile=0.6)
