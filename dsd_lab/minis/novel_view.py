"""Train a mini of new views: a small network like Zero-1-to-3, from pairs of views of one toy.

The autoencoder is another mini's, and the UNet starts as one that makes toys from text and camera,
as Zero-1-to-3's started as Stable Diffusion's. It learns together with the image encoder and the
projection: a toy is given as it looks from in front, another view is asked for, and the camera is
told relative to the given one.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cameras import Camera, sample_cameras
from ..files import write_file
from ..priors.network import quiet
from ..priors.novel_view import NovelViewNetwork, NovelViewPrior, relative_pose
from ..schedule import NoiseSchedule
from .text_to_image import (
    RECIPES,
    Recipe,
    Stage,
    batch_of,
    claim,
    denoising_loss,
    encode_all,
    generator_of,
    hardware,
    make_autoencoder,
    make_scheduler,
    make_unet,
    part_of,
    run_stage,
)

RECIPE = replace(RECIPES["toybox"], start="toybox-mini", steps=4000)
GIVEN = Camera(
    0, 20
)  # from where the given picture is taken: to guess that too would take a larger network
PATCH = 8  # pixels a side of what the image encoder reads as one token


@dataclass(frozen=True, eq=False)
class ViewPairs:
    """What a novel-view mini learns from: N toys in V views each, of which the first is given and
    any may be asked for.

    pixels uint8 (N, V, 3, S, S); cameras: V for each toy.
    """

    name: str
    pixels: Tensor
    cameras: tuple[tuple[Camera, ...], ...]
    credit: str = ""

    @classmethod
    def toys(cls, singles: int = 40, groups: int = 8, views: int = 8, seed: int = 0) -> ViewPairs:
        """Procedural toys at 64 px, from in front and from random cameras: of each kind singles,
        and threes that share a front.

        The singles have the seeds from 0 on, the groups those from 10 on, so that the world's own
        toys are among them.
        """
        from ..worlds import make_toys, render
        from ..worlds.toybox.world import CREDIT, KINDS

        seeds = [*range(singles), *(10 + i // 3 for i in range(3 * groups))]
        backs = [None] * singles + [0, 1, 2] * groups
        toys = make_toys(
            [kind for kind in KINDS for _ in seeds], seeds * len(KINDS), backs * len(KINDS)
        )
        generator, pixels, cameras = generator_of(seed, "pairs"), [], []
        for part in torch.arange(len(toys)).split(
            8
        ):  # eight toys share their cameras, so that the renderer has a batch
            own = (GIVEN, *sample_cameras(views, generator))
            pixels.append((render(toys.subset(part), own).rgb * 255).round().byte())
            cameras += [own] * len(part)
        return cls("toybox-novel-view", torch.cat(pixels), tuple(cameras), CREDIT)


def make_network(side: int, recipe: Recipe) -> NovelViewNetwork:
    """The network for side x side pictures before its training: its UNet is the recipe's start's
    but for what that lacks.

    The weights for the given picture's latents are zero, so that at first it sees what it saw
    before.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width = recipe.text_width
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=side,
        patch_size=PATCH,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        unet = make_unet(
            side,
            recipe,
            in_channels=8,
            class_embed_type="simple_projection",
            projection_class_embeddings_input_dim=4,
        )
        if recipe.start is not None:
            start_from(unet, recipe.start)
        return NovelViewNetwork(
            unet, CLIPVisionModelWithProjection(vision), nn.Linear(width + 4, width)
        )


def start_from(unet: nn.Module, name: str) -> None:
    """Copy the weights of a mini's UNet, but for the class embedding's. ValueError for one of
    another size.
    """
    from diffusers import UNet2DConditionModel

    with quiet():
        start = UNet2DConditionModel.from_pretrained(
            part_of(name, "unet"), torch_dtype=torch.float32, use_safetensors=True
        )
    weights = {k: v for k, v in start.state_dict().items() if not k.startswith("class_embedding")}
    weights["conv_in.weight"] = torch.cat(
        [weights["conv_in.weight"], torch.zeros_like(weights["conv_in.weight"])], 1
    )
    own = {k: v for k, v in unet.state_dict().items() if not k.startswith("class_embedding")}
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
        raise ValueError(
            f"the UNet of {name} has widths {start.config.block_out_channels}; the recipe's are "
            f"{unet.config.block_out_channels}"
        )
    unet.load_state_dict(weights, strict=False)


class Learner(nn.Module):
    """The network as training calls it, from the given view's pictures: (x_t, t, latents, pictures,
    pose, keep) -> output.
    """

    def __init__(self, network: NovelViewNetwork):
        super().__init__()
        self.network = network

    def forward(
        self, x_t: Tensor, t: Tensor, latents: Tensor, pictures: Tensor, pose: Tensor, keep: Tensor
    ) -> Tensor:
        return self.network(x_t, t, latents, self.network.embed(pictures), pose, keep)


def train_novel_view(
    data: ViewPairs,
    out: Path | str,
    recipe: Recipe = RECIPE,
    *,
    device: str = "auto",
    every: int = 250,
    samples: Callable[[NovelViewPrior, int], None] | None = None,
) -> NovelViewPrior:
    """Train on `data`, write a pipeline folder `out` as the diffusers conversion of Zero-1-to-3 is
    laid out, return its prior.

    The same call goes on where an earlier one stopped, and comes to the same weights, as
    `text_to_image.train` does.
    samples: called at each checkpoint with (prior, step). Raises ValueError for a recipe without an
    autoencoder to take, and for a folder that holds another training.
    """
    from accelerate import Accelerator

    if recipe.autoencoder is None:
        raise ValueError(
            'a novel-view mini takes its autoencoder from another mini: Recipe(autoencoder="icons-mini")'
        )
    out = Path(out).expanduser()
    accelerator = Accelerator(mixed_precision=recipe.precision, cpu=device == "cpu")
    device, (toys, views), side = accelerator.device, data.pixels.shape[:2], data.pixels.shape[-1]
    digest = hashlib.sha256(data.pixels.numpy().tobytes()).hexdigest()[:16]
    vae = make_autoencoder(side, recipe).to(device).requires_grad_(False).eval()
    scheduler, network = make_scheduler(recipe), make_network(side, recipe)
    claim(out / "checkpoint", {"data": data.name, "pixels": digest, "recipe": asdict(recipe)})
    unscaled = encode_all(vae, data.pixels.flatten(0, 1), device).unflatten(0, (toys, views))
    vae.register_to_config(scaling_factor=round(1 / float(unscaled.std()), 5))
    pose = torch.stack([relative_pose(own[0], own) for own in data.cameras])  # (N, V, 4)
    schedule = NoiseSchedule.from_diffusers(scheduler.config)

    def loss(learner, step):
        toy, generator = batch_of("network", step, toys, recipe.batch, recipe.seed, accelerator)
        asked = torch.randint(views, (len(toy),), generator=generator)
        keep = (torch.rand(len(toy), generator=generator) >= recipe.drop).float()
        told = (unscaled[toy, 0], data.pixels[toy, 0].float() / 255, pose[toy, asked], keep)
        x0 = (unscaled[toy, asked] * vae.config.scaling_factor).to(device)
        return denoising_loss(
            learner, schedule, x0, [part.to(device) for part in told], generator, recipe.min_snr
        )

    stage = Stage(
        "network",
        Learner(network).to(device),
        recipe.steps,
        recipe.lr,
        recipe.ema,
        out / "checkpoint" / "network.safetensors",
    )
    stage.resume()

    def show(stage):
        if samples:  # a copy, since a prior freezes, casts and moves what it is made of
            shown = Learner(copy.deepcopy(network)).eval()
            shown.load_state_dict(stage.averaged, strict=False)
            samples(
                NovelViewPrior(
                    shown.network, copy.deepcopy(vae), scheduler.config, out.name, "cpu"
                ),
                stage.step,
            )

    run_stage(stage, loss, accelerator, every, show)
    stage.load_averaged()
    prior = NovelViewPrior(network, vae, scheduler.config, out.name, "cpu")
    if accelerator.is_main_process:
        export(
            prior,
            scheduler,
            out,
            {
                "data": data.name,
                "pictures": toys * views,
                "toys": toys,
                "credit": data.credit,
                "recipe": asdict(recipe),
                "minutes": {"autoencoder": 0.0, "network": round(stage.seconds / 60, 1)},
                "hardware": hardware(device),
                "processes": accelerator.num_processes,
            },
        )
    return prior


def export(prior: NovelViewPrior, scheduler, out: Path, facts: dict) -> None:
    """Write the pipeline folder in half precision as safetensors, and training.json with the facts
    of its training.
    """
    from safetensors.torch import save_file

    network = prior.network
    with quiet():
        for name, part in {
            "unet": network.unet,
            "vae": prior.vae,
            "image_encoder": network.image_encoder,
        }.items():
            copy.deepcopy(part).to("cpu", torch.float16).save_pretrained(
                out / name, safe_serialization=True
            )
        scheduler.save_pretrained(out / "scheduler")
    linear = network.projection
    (out / "cc_projection").mkdir(parents=True, exist_ok=True)
    weights = {
        f"projection.{k}": v.detach().cpu().half().contiguous()
        for k, v in linear.state_dict().items()
    }
    save_file(
        weights, out / "cc_projection" / "diffusion_pytorch_model.safetensors", {"format": "pt"}
    )
    write_file(
        out / "cc_projection" / "config.json",
        json.dumps(
            {
                "_class_name": "CCProjection",
                "in_channel": linear.in_features,
                "out_channel": linear.out_features,
            },
            indent=1,
        )
        + "\n",
    )
    write_file(
        out / "model_index.json",
        json.dumps(
            {
                "_class_name": "Zero1to3StableDiffusionPipeline",
                "vae": ["diffusers", "AutoencoderKL"],
                "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
                "unet": ["diffusers", "UNet2DConditionModel"],
                "scheduler": ["diffusers", type(scheduler).__name__],
                "cc_projection": ["pipeline_zero1to3", "CCProjection"],
            },
            indent=1,
        )
        + "\n",
    )
    write_file(out / "training.json", json.dumps(facts, indent=1) + "\n")
