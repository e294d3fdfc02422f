"""The task of a text-to-image mini: a complete, small Stable Diffusion, from captioned pictures."""

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from ..cameras import orbit
from ..files import write_file
from ..priors.multi_view import join_views, prior_of
from ..priors.network import quiet
from ..priors.pipeline import camera_vector
from ..viz.pictures import sheet
from .data import BLURRY, TrainingSet
from .exams import sample
from .parts import (
    ENCODER,
    encode_all,
    fit_scale,
    make_autoencoder,
    make_scheduler,
    make_tokenizer,
    make_unet,
    seeded,
    start_from,
)
from .recipe import Recipe


class Denoiser(nn.Module):
    """Text encoder and UNet as one network."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(
        self, x_t: Tensor, t: Tensor, tokens: Tensor, camera: Tensor | None = None
    ) -> Tensor:
        """x_t (B, 4, h, w), t (B,), tokens (B, L), camera (B, D): native output (B, 4, h, w)."""
        return self.unet(x_t, t, self.text_encoder(tokens)[0], class_labels=camera).sample


@dataclass(frozen=True, eq=False)
class TextToImage:
    """Text encoder and UNet learn together to denoise the latents of captioned pictures.

    together: how many views of an object are denoised jointly (see `MultiViewPrior`); the data's
    follow each other, set by set. `train` returns it as a `StableDiffusionPipeline`.
    Raises ValueError for views or a batch that make no whole sets.
    """

    data: TrainingSet
    recipe: Recipe = Recipe()
    together: int = 1

    def __post_init__(self):
        for what, count in (("views", self.views), ("batch", self.recipe.batch)):
            if count % self.together:
                raise ValueError(f"{what} must be a multiple of {self.together}, got {count}")

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Of the captions' words. Its length leaves room for <start>, <end> and "blurry"."""
        longest = max(len(text.split()) for texts in self.data.captions for text in texts)
        return make_tokenizer(self.data.words, max(8, 3 + longest))

    @cached_property
    def captions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of the empty text and of every distinct caption, each sharp and blurry, int64 (2 +
        2 T, L); each object's captions, from 1 on, padded (N, most); how many these are (N,).
        """
        texts = list(dict.fromkeys(text for own in self.data.captions for text in own))
        forms = [form for text in ("", *texts) for form in (text, with_blurry(text))]
        tokens = self.tokenizer(forms, padding="max_length", return_tensors="pt").input_ids
        number = {text: 1 + i for i, text in enumerate(texts)}
        rows = [torch.tensor([number[text] for text in own]) for own in self.data.captions]
        return tokens, pad_sequence(rows, batch_first=True), torch.tensor([*map(len, rows)])

    @property
    def views(self) -> int:
        return self.data.pixels.shape[1]

    @cached_property
    def cameras(self) -> Tensor | None:
        """Of each picture, as the UNet takes them: (N V, 8)."""
        if self.data.cameras is None:
            return None
        return camera_vector([*chain.from_iterable(self.data.cameras)])

    def networks(self) -> tuple[AutoencoderKL, Denoiser]:
        """The autoencoder and the denoiser before training."""
        side, camera = self.data.pixels.shape[-1], 0 if self.data.cameras is None else 8
        with seeded(self.recipe.seed):
            vae = make_autoencoder(side, self.recipe)
            unet = make_unet(side, self.recipe, camera=camera)
            if self.together > 1:
                join_views(unet, self.together)
            text_encoder = CLIPTextModel(text_config(self.tokenizer, self.recipe.text_width))
        if self.recipe.start is not None:
            start_from(unet, self.recipe.start, "unet")
            start_from(text_encoder, self.recipe.start, "text_encoder")
        return vae, Denoiser(unet, text_encoder)

    def encode(self, vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
        """Latents of the pictures and of the blurred pictures, scaled: (N V, 4, S/4, S/4) each."""
        pictures = self.data.pictures
        sharp, soft = encode_all(vae, pictures), encode_all(vae, blurred(pictures))
        scale = fit_scale(vae, sharp)
        return sharp * scale, soft * scale

    def batch(
        self, latents: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        """x0 (B, 4, S/4, S/4), tokens (B, L), and cameras (B, 8) where the data has them."""
        (sharp, soft), (tokens, choices, count) = latents, self.captions
        size, total = self.recipe.batch // self.together, len(sharp) // self.together
        i = torch.randint(total, (size,), generator=generator)
        draw, of = torch.rand(3, size, generator=generator), i * self.together // self.views
        blurry, dropped = draw[0] < self.recipe.blurry, draw[1] < self.recipe.drop
        caption = torch.where(dropped, 0, choices[of, (draw[2] * count[of]).long()])
        i = (i[:, None] * self.together + torch.arange(self.together)).flatten()
        blurry, caption = (part.repeat_interleave(self.together) for part in (blurry, caption))
        x0 = torch.where(blurry[:, None, None, None], soft[i], sharp[i])
        camera = None if self.cameras is None else self.cameras[i]
        return x0, (tokens[2 * caption + blurry], camera)

    def assemble(self, network: Denoiser, vae: AutoencoderKL, name: str = ""):
        """A `StableDiffusionPipeline` of copies of the networks."""
        network, vae = copy.deepcopy(network).eval(), copy.deepcopy(vae)
        with quiet():  # it warns that there is no safety checker; there is nothing here to check
            from diffusers import StableDiffusionPipeline

            return StableDiffusionPipeline(
                vae=vae,
                text_encoder=network.text_encoder,
                tokenizer=self.tokenizer,
                unet=network.unet,
                scheduler=make_scheduler(self.recipe),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )

    def preview(self, pipe, title: str):
        """Eight samples of up to six captions."""
        prior = prior_of(pipe, "preview", pipe.device, torch.float32)
        prompts = list(dict.fromkeys(texts[0] for texts in self.data.captions))
        prompts = prompts[:: math.ceil(len(prompts) / 6)]
        cameras = orbit(8) if prior.cameras else None
        rows = zip(prompts, sample(prior, prompts, range(8), 25, 4.0, cameras=cameras), strict=True)
        return sheet(dict(rows), title=title, credit=self.data.credit)

    def export(self, network: Denoiser, vae: AutoencoderKL, out: Path) -> None:
        """Write the pipeline."""
        pipe = self.assemble(network, vae)
        with quiet():
            for part in (pipe.vae, pipe.unet, pipe.text_encoder):
                part.to("cpu", torch.float16)
            pipe.save_pretrained(out, safe_serialization=True)
        make_readable(out)


def text_config(tokenizer: PreTrainedTokenizerFast, width: int) -> CLIPTextConfig:
    """Of a small text encoder with so many channels."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        hidden_size=width,
        intermediate_size=2 * width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **ENCODER,
    )


def make_readable(out: Path) -> None:
    """Change a pipeline's folder so that transformers 4 and 5 read it."""
    fast = ("TokenizersBackend", "PreTrainedTokenizerFast")  # the name that both know
    full = ("float16", "float32")  # else it would be read in another dtype than the rest
    for name, (old, new) in {
        "model_index.json": fast,
        "tokenizer/tokenizer_config.json": fast,
        "text_encoder/config.json": full,
    }.items():
        text = (out / name).read_text(encoding="utf-8")
        write_file(out / name, text.replace(f'"{old}"', f'"{new}"'))


def with_blurry(text: str) -> str:
    """The caption of a blurred picture: "a dragon" -> "a blurry dragon", "" -> "blurry"."""
    article, _, rest = text.partition(" ")
    return f"a {BLURRY} {rest}" if article in ("a", "an") else f"{BLURRY} {text}".strip()


def blurred(pixels: Tensor) -> Tensor:
    """Pictures blurred by a Gaussian of a twentieth of their side, uint8 like them."""
    side = pixels.shape[-1]
    offset = (torch.arange(side)[:, None] - torch.arange(side)).float()
    weight = torch.softmax(-(offset**2) / (2 * (side / 20) ** 2), dim=1)
    return (weight @ pixels.float() @ weight.T).round().clamp(0, 255).byte()
