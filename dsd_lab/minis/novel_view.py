"""The task of a novel-view mini: a small network like Zero-1-to-3, from pairs of views of one toy.

A toy is given as one camera sees it, half of the time from in front; another view is wanted, and
its camera is relative to the given one. The UNet starts as one that makes toys from text and
camera, as Zero-1-to-3's started as Stable Diffusion's; it learns together with the image encoder
and the projection.
"""

import copy
import math
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from .. import checkpoint
from ..files import prepare_folder, write_json, write_whole
from ..inputs import InputView
from ..priors.network import quiet
from ..priors.zero123 import NovelViewNetwork, NovelViewPrior, relative_pose
from ..sampling import ddim
from ..viz.pictures import sheet
from .data import TrainingSet
from .parts import (
    ENCODER,
    encode_all,
    fit_scale,
    forget_sources,
    make_autoencoder,
    make_scheduler,
    make_unet,
    seeded,
    start_from,
)
from .recipe import RECIPES, Recipe

INDEX = {
    "_class_name": "Zero1to3StableDiffusionPipeline",
    "vae": ["diffusers", "AutoencoderKL"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "cc_projection": ["pipeline_zero1to3", "CCProjection"],
}


class FromPictures(nn.Module):
    """A `NovelViewNetwork` as training calls it: with the given pictures, not their embeddings."""

    def __init__(self, network: NovelViewNetwork):
        super().__init__()
        self.network = network

    def forward(
        self, x_t: Tensor, t: Tensor, latents: Tensor, pictures: Tensor, pose: Tensor, keep: Tensor
    ) -> Tensor:
        """pictures (B, 3, S, S) in [0, 1]; the rest as `NovelViewNetwork` takes it."""
        return self.network(x_t, t, latents, self.network.embed(pictures), pose, keep)


@dataclass(frozen=True, eq=False)
class NovelView:
    """Image encoder, projection and UNet learn together to denoise a toy's view, given another one.

    `train` returns it as a `NovelViewPrior`. Raises ValueError for data without cameras.
    """

    data: TrainingSet
    recipe: Recipe = RECIPES["toybox-novel-view"]
    together = 1

    def __post_init__(self):
        if self.data.cameras is None:
            raise ValueError(
                f"new views are learned from views with cameras; {self.data.name} has none"
            )

    @cached_property
    def pose(self) -> Tensor:
        """Of the wanted view, the last index, relative to the given one: (N, V, V, 4)."""
        turned = cache(lambda views: torch.stack([relative_pose(view, views) for view in views]))
        return torch.stack([turned(tuple(cameras)) for cameras in self.data.cameras])

    def networks(self) -> tuple[AutoencoderKL, FromPictures]:
        """The autoencoder and the network of new views before training."""
        side, width = self.data.pixels.shape[-1], self.recipe.text_width
        vision = CLIPVisionConfig(
            image_size=side,
            patch_size=8,
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            **ENCODER,
        )
        with seeded(self.recipe.seed):
            vae = make_autoencoder(side, self.recipe)
        with seeded(self.recipe.seed):
            unet = make_unet(side, self.recipe, in_channels=8, camera=4)
            if self.recipe.start is not None:
                start_from(unet, self.recipe.start, "unet")
            image_encoder = CLIPVisionModelWithProjection(vision)
            projection = nn.Linear(width + 4, width)
        return vae, FromPictures(NovelViewNetwork(unet, image_encoder, projection))

    def encode(self, vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
        """Latents of all views, unscaled, as the network sees the given ones, and scaled: (N, V, 4,
        S/4, S/4) each.
        """
        latents = encode_all(vae, self.data.pictures).unflatten(0, self.data.pixels.shape[:2])
        return latents, latents * fit_scale(vae, latents)

    def batch(
        self, latents: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x0 of the wanted views; of the given ones, half of them the first, latents and pictures;
        pose; and keep (B,), 0 where the condition is left out.
        """
        unscaled, scaled = latents
        toys, views = self.data.pixels.shape[:2]
        toy = torch.randint(toys, (self.recipe.batch,), generator=generator)
        given, wanted = torch.randint(views, (2, len(toy)), generator=generator)
        given[: len(toy) // 2] = 0
        keep = (torch.rand(len(toy), generator=generator) >= self.recipe.drop).float()
        pictures = self.data.pixels[toy, given].float() / 255
        told = unscaled[toy, given], pictures, self.pose[toy, given, wanted], keep
        return scaled[toy, wanted], told

    def assemble(self, network: FromPictures, vae: AutoencoderKL, name: str) -> NovelViewPrior:
        """The prior of copies of the networks."""
        network, vae = copy.deepcopy(network.network), copy.deepcopy(vae)
        config = make_scheduler(self.recipe).config
        return NovelViewPrior(network, vae, config, name, vae.device, torch.float32)

    def preview(self, prior: NovelViewPrior, title: str):
        """Of up to six toys the given view, up to four true ones, and samples of these."""
        rows, toys = {}, len(self.data.pixels)
        for i in range(0, toys, math.ceil(toys / 6)):
            given, *true = self.data.pixels[i, :5] / 255
            first, *wanted = self.data.cameras[i][:5]
            view = InputView(given, torch.ones_like(given[:1]), first)
            cond = prior.condition(view, camera=wanted)
            path = ddim(prior, prior.noise([0] * len(wanted)), cond, 25, 2.0)
            rows[f"toy {i}"] = [given, *true, *path.images]
        return sheet(rows, title=title, credit=self.data.credit)

    def export(self, network: FromPictures, vae: AutoencoderKL, out: Path) -> None:
        """Write a folder as the diffusers conversion of Zero-1-to-3 is laid out."""
        network, vae = copy.deepcopy(network.network), copy.deepcopy(vae)
        parts = {"unet": network.unet, "vae": vae, "image_encoder": network.image_encoder}
        with quiet():
            for name, part in parts.items():
                part.to("cpu", torch.float16).save_pretrained(out / name, safe_serialization=True)
            make_scheduler(self.recipe).save_pretrained(out / "scheduler")
        folder, linear = prepare_folder(out / "cc_projection"), network.projection
        weights = checkpoint.prefixed("projection", linear.to("cpu", torch.float16).state_dict())
        file = folder / "diffusion_pytorch_model.safetensors"
        write_whole(file, lambda place: save_file(weights, place, {"format": "pt"}))
        config = {"in_channel": linear.in_features, "out_channel": linear.out_features}
        write_json(folder / "config.json", {"_class_name": "CCProjection", **config})
        write_json(out / "model_index.json", INDEX)
        forget_sources(out)
