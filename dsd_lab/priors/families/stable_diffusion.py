"""Stable Diffusion 1.x and 2.x, XL, and DeepFloyd IF's first stage: UNets told a prompt.

The functions are what a record is made of: see `Family`.
"""

from dataclasses import replace

import torch

from .base import Family, width

UNET_WANTS = {
    "encoder_hid_dim_type": (
        (None, "text_proj"),
        "is shown a picture too; an IP-Adapter is taken off by pipe.unload_ip_adapter()",
    ),
    "time_cond_proj_dim": (
        (None,),
        "is told its guidance, as one distilled to a few steps (LCM) is; give the pipeline that "
        "it was distilled from",
    ),
    "num_class_embeds": ((None,), "wants class labels that are not camera vectors of 8 numbers"),
}
ALONE = {"addition_embed_type": ((None, "text"), "is told more than the prompt")}
CAMERA = {
    "class_embed_type": (
        (None, "simple_projection"),
        "wants class labels that are not camera vectors of 8 numbers",
    )
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def encode(pipe, texts, wanted, device):
    embedded = pipe.encode_prompt(
        prompt=texts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )[0]
    return {"embedded": embedded}


def sizes(pipe):
    return {"embedded": (2, width(pipe.text_encoder))}


def ask(unet, x, t, told):
    labels = {"class_labels": told["camera"].to(x)} if "camera" in told else {}
    return unet(x, t, encoder_hidden_states=told["embedded"], **labels).sample


STABLE_DIFFUSION = Family(
    title="Stable Diffusion 1.x and 2.x",
    pipelines=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
    part="unet",
    network="UNet2DConditionModel",
    predictions=PREDICTIONS,
    encode=encode,
    sizes=sizes,
    ask=ask,
    wants=UNET_WANTS | ALONE | CAMERA,
)
DEEPFLOYD_IF = replace(
    STABLE_DIFFUSION, title="DeepFloyd IF stage 1", pipelines=("IFPipeline",), pixels=True
)


def encode_xl(pipe, texts, wanted, device):
    embedded, _, pooled, _ = pipe.encode_prompt(
        prompt=texts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if pipe.config.force_zeros_for_empty_prompt:  # no prompt is not the empty one
        given = torch.tensor([text != "" for text in texts], device=embedded.device)
        embedded, pooled = embedded * given[:, None, None], pooled * given[:, None]
    return {"embedded": embedded, "pooled": pooled}


def sizes_xl(pipe):
    both = width(pipe.text_encoder) + width(pipe.text_encoder_2)
    return {"embedded": (2, both), "pooled": (pipe.text_encoder_2.config.projection_dim,)}


def whole_picture(unet, sides, guidance):
    """The picture's original size, the corner that it was cut at, and the size it was cut to."""
    return {"time_ids": torch.tensor([*sides, 0, 0, *sides]).float()}


def ask_xl(unet, x, t, told):
    added = {"text_embeds": told["pooled"], "time_ids": told["time_ids"]}
    embedded = told["embedded"]
    return unet(x, t, encoder_hidden_states=embedded, added_cond_kwargs=added).sample


STABLE_DIFFUSION_XL = Family(
    title="Stable Diffusion XL",
    pipelines=("StableDiffusionXLPipeline",),
    part="unet",
    network="UNet2DConditionModel",
    predictions=PREDICTIONS,
    encode=encode_xl,
    sizes=sizes_xl,
    ask=ask_xl,
    more=whole_picture,
    encoders=("text_encoder", "text_encoder_2"),
    wants=UNET_WANTS
    | {
        "addition_embed_type": (("text_time",), "is not told the size of its pictures"),
        "class_embed_type": ((None,), "wants class labels"),
    },
    float32_vae=True,
)
