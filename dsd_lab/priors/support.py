"""Which pipelines can be asked: those of a known family, whose network wants x, t, what a prompt
gives and perhaps a camera, and nothing else.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from ..schedule import NoiseSchedule, told_flow
from .autoencoder import compression
from .families import SUPPORTED, Family, family_named
from .families.base import Wants

FEW_STEPS = ("LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler")
STUDENTS = re.compile(r"turbo|lightning|schnell|hyper-?sd|\blcm\b|\btcd\b", re.IGNORECASE)
SHOWN = ("encoder_hid_proj", "image_proj")  # where an IP-Adapter stands in a transformer


def check_supported(pipe) -> Family:
    """The family of a pipeline. Raises TypeError for anything but a diffusers pipeline, ValueError
    for one of no known family, or whose network asks for more than its family tells it.
    """
    from diffusers import DiffusionPipeline

    kind = type(pipe).__name__
    if not isinstance(pipe, DiffusionPipeline):
        raise TypeError(
            f"pipe must be a diffusers pipeline, got {kind}; "
            "for a folder or a hub id use load_prior"
        )
    family = family_named(*(base.__name__ for base in type(pipe).__mro__))
    if family is None:
        raise ValueError(f"{kind} is a pipeline of another family; {SUPPORTED}")
    check_parts_of(pipe, family, kind)
    network = getattr(pipe, family.part)
    check_wants(network, family.wants, kind)
    check_channels(pipe, family, kind)
    check_scheduler(pipe, kind)
    return family


def check_parts_of(pipe, family: Family, kind: str) -> None:
    """Raises ValueError for a pipeline without the network or the text encoders of its family."""
    found = type(getattr(pipe, family.part, None)).__name__
    if found != family.network:
        raise ValueError(f"{kind} has no {family.network} as its {family.part}; {SUPPORTED}")
    encoders = [part for part in family.encoders if part not in family.optional]
    tokenizers = [part.replace("text_encoder", "tokenizer") for part in encoders]
    if missing := [part for part in (*encoders, *tokenizers) if getattr(pipe, part, None) is None]:
        raise ValueError(f"{kind} cannot read a prompt: it lacks its {', '.join(missing)}")
    if not family.pixels and getattr(pipe, "vae", None) is None:
        raise ValueError(f"{kind} lacks its autoencoder, vae")


def check_wants(network: nn.Module, wants: Wants, name: str) -> None:
    """Raises ValueError for a network whose config says that it is told more than a prompt."""
    for setting, (fine, word) in wants.items():
        value = getattr(network.config, setting, None)
        if value not in fine:
            raise ValueError(f"{name} has a network ({setting}={value!r}) that {word}; {SUPPORTED}")
    for part in SHOWN:
        if "encoder_hid_dim_type" not in wants and getattr(network, part, None) is not None:
            raise ValueError(
                f"{name} has a network that is shown a picture too ({part}); an IP-Adapter is "
                "taken off by pipe.unload_ip_adapter()"
            )


def check_channels(pipe, family: Family, kind: str) -> None:
    """Raises ValueError for a network that sees or says more than noisy latents."""
    config = getattr(pipe, family.part).config
    latents = (3 if family.pixels else pipe.vae.config.latent_channels) * family.pack**2
    if config.in_channels != latents:
        raise ValueError(
            f"{kind} has a network of {config.in_channels} input channels where its pictures or "
            f"latents have {latents}"
        )
    out = config.out_channels or latents
    if out not in (latents, 2 * latents):
        raise ValueError(f"{kind} has a network of {out} output channels")
    labels = config.get("class_embed_type") == "simple_projection"
    if labels and config.projection_class_embeddings_input_dim != 8:
        raise ValueError(
            f"{kind} wants class labels that are not camera vectors of 8 numbers; {SUPPORTED}"
        )


def check_scheduler(pipe, kind: str) -> None:
    """Raises ValueError for a scheduler of a few-step student, or one whose levels are unknown."""
    config, scheduler = pipe.scheduler.config, type(pipe.scheduler).__name__
    if scheduler in FEW_STEPS:
        raise ValueError(
            f"{kind} has a {scheduler}, the sign of a network distilled to a few steps, which is "
            "no score at every t; give the pipeline that it was distilled from"
        )
    told = told_flow({**config, "_class_name": scheduler})
    if not told and not {"beta_schedule", "trained_betas"} & set(config):
        raise ValueError(
            f"{kind} has a {scheduler}, whose levels are neither of a diffusion in the sense of "
            "DDPM (no betas) nor of flow matching"
        )


def student(pipe, family: Family, name: str) -> str:
    """Why a pipeline is taken for one distilled to a few steps, or ""."""
    config, scheduler = pipe.scheduler.config, type(pipe.scheduler).__name__
    for called in (name, str(pipe.config.get("_name_or_path", ""))):
        if found := STUDENTS.search(re.split(r"[\\/]", called)[-1]):
            return f'is called "{found[0]}"'
    if getattr(pipe, family.part).config.get("guidance_embeds") is False and not family.has_uncond:
        return "is told no guidance and has none built in"
    trailing = config.get("timestep_spacing") == "trailing"
    if scheduler.startswith("Euler") and trailing and not config.get("rescale_betas_zero_snr"):
        return f'has a {scheduler} of timestep_spacing="trailing", as Turbo has'
    return ""


def warn_of_student(pipe, family: Family, name: str) -> bool:
    """Whether a pipeline is taken for one distilled to a few steps; says so if it is."""
    if why := student(pipe, family, name):
        warnings.warn(
            f"{name} {why}: a network distilled to a few steps is no score at every t, and is "
            "asked at cfg=1 alone",
            stacklevel=3,
        )
    return bool(why)


def overflows(family: Family, vae: nn.Module | None, dtype: torch.dtype) -> bool:
    """Whether an autoencoder is of no use in a dtype, as SDXL's is in float16."""
    return dtype == torch.float16 and family.float32_vae and bool(vae.config.get("force_upcast"))


def shape_of(pipe, family: Family, size: int | None) -> tuple[int, int, int]:
    """The shape of a pipeline's latents: its own, or those of pictures of a side of `size` pixels.
    Raises ValueError for a size that it cannot have, or if it says none.
    """
    config, kind = getattr(pipe, family.part).config, type(pipe).__name__
    vae = None if family.pixels else pipe.vae
    pixels = compression(vae)
    patch = family.pack * (config.get("patch_size") or 1)
    side = config.get("sample_size", getattr(pipe, "default_sample_size", None))
    if size is not None:
        if size < 1 or size % (pixels * patch):
            raise ValueError(
                f"size must be a multiple of {pixels * patch} pixels for {kind}, got {size}"
            )
        side = size // pixels
    if side is None:
        raise ValueError(
            f"{kind} does not say how large its samples are (sample_size in its network's config)"
        )
    channels = 3 if vae is None else vae.config.latent_channels
    return channels, *((side, side) if isinstance(side, int) else tuple(side))


def schedule_of(pipe, family: Family, shape: tuple[int, int, int]) -> NoiseSchedule:
    """The schedule of a pipeline. Raises ValueError for one that its network cannot have."""
    patch = family.pack * (getattr(pipe, family.part).config.get("patch_size") or 1)
    tokens = shape[1] * shape[2] // patch**2
    schedule = NoiseSchedule.from_diffusers(pipe.scheduler, tokens)
    if schedule.prediction_type not in family.predictions:
        raise ValueError(
            f"{type(pipe).__name__} has a {type(pipe.scheduler).__name__} of "
            f"{schedule.prediction_type} predictions; {family.title} has "
            f"{' or '.join(family.predictions)}"
        )
    return schedule


def check_call(
    pipe, family: Family, shape: tuple[int, int, int], more: dict[str, torch.Tensor]
) -> None:
    """Raises ValueError for a network that cannot be asked as its family is: whatever else its
    config may make it want. It is tried on shapes alone, without its weights.
    """
    network = getattr(pipe, family.part)
    sizes = family.sizes(pipe) | {name: tuple(each.shape) for name, each in more.items()}
    if network.config.get("class_embed_type"):
        sizes["camera"] = (8,)
    try:
        with torch.device("meta"), torch.no_grad():
            twin = type(network).from_config(network.config).eval()
            told = {name: torch.zeros(2, *size) for name, size in sizes.items()}
            family.ask(twin, torch.zeros(2, *shape), torch.zeros(2), told)
    except Exception as error:  # whatever its layers say
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"{type(pipe).__name__} has a network that does not take a noisy picture, a time and "
            f"a prompt alone ({why}); {SUPPORTED}"
        ) from error


def check_at_hand(modules: Sequence[nn.Module], name: str) -> Sequence[nn.Module]:
    """The modules. Raises ValueError for one whose weights others move about or none can cast."""
    for module in modules:
        kind = type(module).__name__
        if offloaded(module):
            raise ValueError(
                f"{name} has its {kind} offloaded, so that its weights are not where they are "
                "asked for: load the pipeline without device_map and offloading, or take these "
                "off first, pipe.remove_all_hooks(); where memory is short give "
                "dtype=torch.float16"
            )
        if getattr(module, "is_quantized", False) or getattr(module, "hf_quantizer", None):
            raise ValueError(
                f"{name} has a quantised {kind}, which can be neither cast nor differentiated "
                "through: load it without quantization_config, in half precision if memory is short"
            )
    return modules


def offloaded(module: nn.Module) -> bool:
    """Whether accelerate or diffusers moves its weights to and fro, or has them elsewhere."""
    if any(p.device.type == "meta" for p in module.parameters()):
        return True
    for part in module.modules():
        hooks = getattr(getattr(part, "_diffusers_hook", None), "hooks", {})
        if hasattr(part, "_hf_hook") or any("offload" in hook for hook in hooks):
            return True
    return False
