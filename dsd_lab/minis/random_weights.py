"""Pipelines in the shapes of well-known ones, with random weights: what a step costs does not
depend on what a network has learned.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ..checks import choice
from ..priors.network import quiet
from ..schedule import STABLE_DIFFUSION
from .parts import make_tokenizer, seeded

THINGS = ("cat", "chair", "dragon", "hamburger")
WORDS = (*THINGS, *(f"{thing}," for thing in THINGS), "a", "blurry")
WORDS += ("front", "side", "back", "overhead", "view")
LENGTH = 77  # tokens of a text
HALVES = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")


Text = tuple[type[nn.Module], int, int, int, int]


@dataclass(frozen=True)
class Shape:
    """A pipeline's sizes: of its network, of its autoencoder and of each text encoder.

    kind, network: the network's class and settings. vae: settings. texts: each encoder's class,
    width, layers, heads and width projected to. pipeline: makes one from (vae, text encoders,
    network). tiny, tiny_texts: the settings of a small one of its kind.
    """

    kind: type[nn.Module]
    network: Mapping[str, object]
    tiny: Mapping[str, object]
    vae: Mapping[str, object]
    texts: tuple[Text, ...]
    tiny_texts: tuple[Text, ...]
    pipeline: Callable


def _stable_diffusion(vae, texts, unet):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=texts[0],
        tokenizer=make_tokenizer(WORDS, LENGTH),
        unet=unet,
        scheduler=_ddim("v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(vae, texts, unet):
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=texts[0],
        text_encoder_2=texts[1],
        tokenizer=make_tokenizer(WORDS, LENGTH),
        tokenizer_2=make_tokenizer(WORDS, LENGTH),
        unet=unet,
        scheduler=_ddim("epsilon"),
        add_watermarker=False,
    )


def _sd3(vae, texts, transformer):
    from diffusers import StableDiffusion3Pipeline

    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=texts[0],
        text_encoder_2=texts[1],
        text_encoder_3=None,  # as it is run where memory is short
        tokenizer=make_tokenizer(WORDS, LENGTH),
        tokenizer_2=make_tokenizer(WORDS, LENGTH),
        tokenizer_3=None,
    )


def _ddim(prediction):
    return DDIMScheduler(
        **STABLE_DIFFUSION, clip_sample=False, set_alpha_to_one=False, prediction_type=prediction
    )


PLAIN, PROJECTED = CLIPTextModel, CLIPTextModelWithProjection
CLIP_L, CLIP_G = (768, 12, 12, 768), (1280, 32, 20, 1280)
ADDED = {"addition_embed_type": "text_time", "use_linear_projection": True}
TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": HALVES[0],
    "up_block_types": HALVES[1],
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "transformer_layers_per_block": 1,
}
SHAPES = {
    "sd-2.1": Shape(
        UNet2DConditionModel,
        {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        TINY_UNET | {"cross_attention_dim": 16},
        {"latent_channels": 4, "scaling_factor": 0.18215, "sample_size": 512},
        ((PLAIN, 1024, 23, 16, 512),),
        ((PLAIN, 16, 1, 4, 16),),
        _stable_diffusion,
    ),
    "sdxl": Shape(
        UNet2DConditionModel,
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
            "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        }
        | ADDED,
        TINY_UNET
        | ADDED
        | {
            "cross_attention_dim": 32,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 64,
        },
        {"latent_channels": 4, "scaling_factor": 0.13025, "sample_size": 1024},
        ((PLAIN, *CLIP_L), (PROJECTED, *CLIP_G)),
        ((PLAIN, 16, 1, 4, 16), (PROJECTED, 16, 1, 4, 16)),
        _sdxl,
    ),
    "sd3": Shape(
        SD3Transformer2DModel,
        {
            "sample_size": 128,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 192,
        },
        {
            "sample_size": 8,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 64,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 32,
            "pos_embed_max_size": 8,
        },
        {
            "latent_channels": 16,
            "scaling_factor": 1.5305,
            "shift_factor": 0.0609,
            "sample_size": 1024,
        },
        ((PROJECTED, *CLIP_L), (PROJECTED, *CLIP_G)),
        ((PROJECTED, 16, 1, 4, 16), (PROJECTED, 16, 1, 4, 16)),
        _sd3,
    ),
}


def random_pipeline(
    name: str,
    tiny: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
):
    """A pipeline in the shape of one of `SHAPES`, or a tiny one of its kind, made on a device (on
    "meta" it takes no memory). It knows a few words, see `WORDS`.

    Raises ValueError for an unknown name. The sizes are those of the published configs of Stable
    Diffusion 2.1 base, XL base and 3 medium, the last without its third text encoder.
    """
    shape = SHAPES[choice("shape", name, SHAPES)]
    widths = (8, 16) if tiny else (128, 256, 512, 512)
    blocks = {
        f"{way}_block_types": (f"{way.title()}{coder}Block2D",) * len(widths)
        for way, coder in (("down", "Encoder"), ("up", "Decoder"))
    }
    with quiet(), seeded(seed), torch.device(device), default_dtype(dtype):
        vae = AutoencoderKL(
            block_out_channels=widths,
            layers_per_block=1 if tiny else 2,
            norm_num_groups=8 if tiny else 32,
            **blocks,
            **shape.vae,
        )
        texts = [_clip(*text) for text in (shape.tiny_texts if tiny else shape.texts)]
        network = shape.kind(**(shape.tiny if tiny else shape.network))
        return shape.pipeline(vae, texts, network)


def _clip(kind, width, layers, heads, projected):
    return kind(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=projected,
            max_position_embeddings=LENGTH,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors are of this dtype within it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
