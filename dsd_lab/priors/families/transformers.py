"""Transformers told a prompt: Stable Diffusion 3, PixArt, Sana and FLUX.1.

The functions are what a record is made of: see `Family`.
"""

import inspect
from dataclasses import replace

import torch

from .base import Family, share, thousandths, width

# ---- Stable Diffusion 3 and 3.5


def encode_sd3(pipe, texts, wanted, device):
    embedded, _, pooled, _ = pipe.encode_prompt(
        prompt=texts,
        prompt_2=None,
        prompt_3=None,
        device=device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    return {"embedded": embedded, "pooled": pooled}


def sizes_sd3(pipe):
    pooled = sum(e.config.projection_dim for e in (pipe.text_encoder, pipe.text_encoder_2))
    return {"embedded": (2, pipe.transformer.config.joint_attention_dim), "pooled": (pooled,)}


def ask_sd3(transformer, x, time, told):
    return transformer(
        hidden_states=x,
        timestep=time,
        encoder_hidden_states=told["embedded"],
        pooled_projections=told["pooled"],
    ).sample


STABLE_DIFFUSION_3 = Family(
    title="Stable Diffusion 3 and 3.5",
    pipelines=("StableDiffusion3Pipeline",),
    part="transformer",
    network="SD3Transformer2DModel",
    predictions=("flow",),
    encode=encode_sd3,
    sizes=sizes_sd3,
    ask=ask_sd3,
    time=thousandths,
    encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
    optional=("text_encoder_3",),
)

# ---- PixArt alpha and sigma


def encode_masked(pipe, texts, wanted, device):
    embedded, mask, _, _ = pipe.encode_prompt(
        prompt=texts, do_classifier_free_guidance=False, num_images_per_prompt=1, device=device
    )
    return {"embedded": embedded, "mask": mask}


def sizes_masked(pipe):
    return {"embedded": (2, width(pipe.text_encoder)), "mask": (2,)}


def resolution(transformer, sides, guidance):
    """The pictures' size and shape, where the network is told them."""
    if not transformer.use_additional_conditions:
        return {}
    height, wide = map(float, sides)
    return {
        "resolution": torch.tensor([height, wide]),
        "aspect_ratio": torch.tensor([height / wide]),
    }


def ask_pixart(transformer, x, time, told):
    return transformer(
        x,
        timestep=time,
        encoder_hidden_states=told["embedded"],
        encoder_attention_mask=told["mask"],
        added_cond_kwargs={name: told.get(name) for name in ("resolution", "aspect_ratio")},
    ).sample


PIXART_ALPHA = Family(
    title="PixArt alpha",
    pipelines=("PixArtAlphaPipeline",),
    part="transformer",
    network="PixArtTransformer2DModel",
    predictions=("epsilon",),
    encode=encode_masked,
    sizes=sizes_masked,
    ask=ask_pixart,
    more=resolution,
    max_tokens=120,
)
PIXART_SIGMA = replace(
    PIXART_ALPHA, title="PixArt sigma", pipelines=("PixArtSigmaPipeline",), max_tokens=300
)

# ---- Sana


def encode_sana(pipe, texts, wanted, device):
    call = inspect.signature(type(pipe).__call__)
    instruction = call.parameters["complex_human_instruction"].default
    embedded, mask, _, _ = pipe.encode_prompt(
        prompt=texts,
        do_classifier_free_guidance=False,
        num_images_per_prompt=1,
        device=device,
        complex_human_instruction=instruction if wanted else None,
    )
    return {"embedded": embedded, "mask": mask}


def ask_sana(transformer, x, time, told):
    return transformer(
        x,
        encoder_hidden_states=told["embedded"],
        encoder_attention_mask=told["mask"],
        timestep=time * transformer.config.timestep_scale,
    ).sample


SANA = Family(
    title="Sana",
    pipelines=("SanaPipeline",),
    part="transformer",
    network="SanaTransformer2DModel",
    predictions=("flow",),
    encode=encode_sana,
    sizes=sizes_masked,
    ask=ask_sana,
    time=thousandths,
    max_tokens=300,
    wants={"guidance_embeds": ((False, None), "is told its guidance, as Sana-Sprint is")},
    instructed=True,
)

# ---- FLUX.1


def encode_flux(pipe, texts, wanted, device):
    embedded, pooled, _ = pipe.encode_prompt(
        prompt=texts, prompt_2=None, device=device, num_images_per_prompt=1
    )
    return {"embedded": embedded, "pooled": pooled}


def sizes_flux(pipe):
    pooled, embedded = width(pipe.text_encoder), width(pipe.text_encoder_2)
    return {"embedded": (2, embedded), "pooled": (pooled,)}


def built_in(transformer, sides, guidance):
    """The guidance, which dev has as an input; schnell has none."""
    return {"guidance": torch.tensor(guidance)} if transformer.config.guidance_embeds else {}


def pack(x):
    """Latents (B, C, h, w) to tokens of two by two of them: (B, h w / 4, 4 C)."""
    batch, channels, h, w = x.shape
    x = x.reshape(batch, channels, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, h * w // 4, 4 * channels)


def unpack(tokens, shape):
    """The reverse of `pack`, to latents of (B, C, h, w)."""
    batch, channels, h, w = shape
    x = tokens.reshape(batch, h // 2, w // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(shape)


def places(h, w, like):
    """Where tokens stand: (0, row, column), float (h w, 3)."""
    grid = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(like)
    return torch.cat([torch.zeros_like(grid[:, :1]), grid], 1)


def ask_flux(transformer, x, time, told):
    *_, h, w = x.shape
    tokens = transformer(
        hidden_states=pack(x),
        timestep=time,
        guidance=told.get("guidance"),
        encoder_hidden_states=told["embedded"],
        pooled_projections=told["pooled"],
        txt_ids=x.new_zeros(told["embedded"].shape[1], 3),
        img_ids=places(h // 2, w // 2, x),
    ).sample
    return unpack(tokens, x.shape)


FLUX = Family(
    title="FLUX.1 dev and schnell",
    pipelines=("FluxPipeline",),
    part="transformer",
    network="FluxTransformer2DModel",
    predictions=("flow",),
    encode=encode_flux,
    sizes=sizes_flux,
    ask=ask_flux,
    time=share,  # which the transformer itself rounds to its dtype
    more=built_in,
    encoders=("text_encoder", "text_encoder_2"),
    tokenizer="tokenizer_2",
    max_tokens=512,
    pack=2,
    has_uncond=False,
)
