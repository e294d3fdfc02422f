"""What every network prior shares: the device, the memory, one call for many questions, and the way
from pictures and back.
"""

from __future__ import annotations

import re
import warnings
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..schedule import NoiseSchedule
from .base import Prior, Query

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class NetworkPrior(Prior):
    """A prior with a UNet, in the latents of its autoencoder or, without one, in pixels.

    x has shape (channels, H, W), the UNet's; pictures have shape `image_shape`, (3, H', W'). x is
    float32 whatever the network's own dtype is, and outputs come in x's dtype. The modules are
    moved to `device`, cast to `dtype` and frozen, in place. scheduler: the config of a diffusers
    scheduler. device: "auto" is cuda, else mps, else cpu. dtype: of the network; None is float32 on
    a CPU, float16 elsewhere.
    max_batch: items in one call of the network at most; None is all of them.
    """

    path_spacing = 20

    def __init__(
        self,
        name: str,
        unet: nn.Module,
        vae: nn.Module | None,
        others: Sequence[nn.Module],
        scheduler,
        channels: int,
        device: str | torch.device,
        dtype: torch.dtype | None,
    ):
        self.name, self.unet, self.vae = name, unet, vae
        self.device = pick_device(device)
        self.network_dtype = pick_dtype(dtype, self.device)
        with quiet():
            for module in filter(None, (unet, vae, *others)):
                module.to(self.device, self.network_dtype).requires_grad_(False).eval()
        side = unet.config.sample_size
        super().__init__(
            (channels, *((side, side) if isinstance(side, int) else side)),
            NoiseSchedule.from_diffusers(scheduler),
        )
        factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 1
        self.image_shape = (3, *(factor * side for side in self.shape[1:]))
        self.preferred_batch, self.max_batch = (16, 64) if self.device.type == "cpu" else (64, None)

    # ---- the network

    @abstractmethod
    def _asked(self, query: Query, term: str) -> Hashable:
        """What a term of a query asks for, beside x and t."""

    @abstractmethod
    def _conditions(self, asked: Sequence[tuple[Hashable, int]]) -> tuple[Tensor | None, ...]:
        """What the network is told, an entry an item each, for questions that stand for so many
        items one after the other.
        """

    @abstractmethod
    def _network(self, x: Tensor, t: Tensor, *conditions: Tensor | None) -> Tensor:
        """The UNet's own output; channels beyond x's (a variance, that some predict too) are left
        out by the caller.
        """

    def _outputs(self, queries: Sequence[Query]) -> list[dict[str, Tensor]]:
        # one call for all queries and terms, in which the same question is asked once
        asked = [
            {
                term: (id(query.x), tuple(query.t.tolist()), self._asked(query, term))
                for term in query.terms
            }
            for query in queries
        ]
        distinct = {
            key: query for query, keys in zip(queries, asked, strict=True) for key in keys.values()
        }
        x = torch.cat([query.x.to(self.device, self.network_dtype) for query in distinct.values()])
        t = torch.cat([query.t for query in distinct.values()]).to(self.device)
        conditions = self._conditions([(key[2], len(query.x)) for key, query in distinct.items()])
        size = self.max_batch or len(x)
        outputs = []
        for part in (slice(i, i + size) for i in range(0, len(x), size)):
            with self._memory(len(x[part]), "prior.max_batch"):
                told = (c if c is None else c[part] for c in conditions)
                outputs.append(self._network(x[part], t[part], *told)[:, : self.shape[0]])
        answer = dict(
            zip(
                distinct,
                torch.cat(outputs).split([len(query.x) for query in distinct.values()]),
                strict=True,
            )
        )
        return [
            {term: answer[key].to(query.x) for term, key in keys.items()}
            for query, keys in zip(queries, asked, strict=True)
        ]

    @contextmanager
    def _memory(self, items: int, setting: str):
        """Says what would fit where memory runs out."""
        try:
            yield
        except RuntimeError as error:
            if not re.search("out of memory|not enough memory|can't allocate memory", str(error)):
                raise
            raise MemoryError(
                f"{items} items at once do not fit into the memory of {self.device}; "
                f"try {setting} = {max(1, items // 2)}"
            ) from error

    # ---- pictures

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to the prior's space, differentiably. Raises ValueError
        for another shape.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images must be (B, {', '.join(map(str, self.image_shape))}) in [0, 1], got {tuple(images.shape)}"
            )
        pixels = (2 * images - 1).to(self.device, self.network_dtype)
        if self.vae is not None:
            with self._memory(len(images), "the batch"):
                encoded = self.vae.encode(pixels)
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
            scale, shift = self._latent_scale
            pixels = (latents - shift) * scale
        return pixels.to(images)

    def decode(self, x: Tensor) -> Tensor:
        """From the prior's space to pictures (B, 3, H, W), clamped to [0, 1]. Raises ValueError for
        another shape.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}"
            )
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


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device meant: "auto" is cuda, else mps, else cpu; or any other that PyTorch has a module
    for. Raises ValueError for one that is not there.
    """
    found = [kind for kind in ("cuda", "mps", "cpu") if devices_of(kind)]
    allowed = ", ".join(['"auto"', *found])
    try:
        wanted = torch.device(found[0] if device == "auto" else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"unknown device {device!r}; allowed here: {allowed}") from error
    if (wanted.index or 0) >= devices_of(wanted.type):
        raise ValueError(f'no device "{wanted}" here; allowed: {allowed}')
    return wanted


def devices_of(kind: str) -> int:
    """How many devices of a kind there are: "cuda", "mps", ..."""
    try:
        return torch.get_device_module(kind).device_count()
    except RuntimeError:  # PyTorch has no module for that kind
        return 0


def pick_dtype(dtype: torch.dtype | None, device: torch.device) -> torch.dtype:
    """A network's dtype: float32 on a CPU and float16 elsewhere unless given. Raises TypeError for
    another kind.
    """
    if dtype is not None and dtype not in DTYPES:
        raise TypeError(
            f"dtype must be one of {', '.join(map(str, DTYPES))} or None, got {dtype!r}"
        )
    return dtype or (torch.float32 if device.type == "cpu" else torch.float16)


def check_parts(
    folder: Path, parts: Sequence[str], weighted: Sequence[str]
) -> dict[str, list[str]]:
    """The weight files of a pipeline folder's parts. Raises ValueError for a part, or for safe
    weights, that are missing.
    """
    if missing := [part for part in parts if not (folder / part).is_dir()]:
        raise ValueError(
            f"{folder} lacks its folder {', '.join(missing)}, which model_index.json lists; get the whole pipeline"
        )
    weights = {
        part: [file.name for file in (folder / part).glob("*.safetensors")]
        for part in weighted
        if part in parts
    }
    for part, files in weights.items():
        if not files:
            others = ", ".join(
                sorted(
                    f.name
                    for f in (folder / part).iterdir()
                    if f.suffix in (".bin", ".ckpt", ".pt", ".pth")
                )
            )
            raise ValueError(
                f"{folder / part} has no .safetensors weights (it has {others or 'none at all'}); other kinds can "
                "run code when they are read: have someone who trusts them save them with safe_serialization=True"
            )
    return weights


def check_complete(unet, folder: Path) -> None:
    """Raises ValueError where weights are missing: diffusers would leave those at random."""
    from safetensors import safe_open

    kept = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            kept |= set(weights.keys())
    if missing := sorted(set(unet.state_dict()) - kept):
        raise ValueError(
            f"{folder}: the weights do not fit config.json, {len(missing)} are missing, such as {missing[0]}"
        )


def gist(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


@contextmanager
def quiet():
    """No progress bars, and no notices about parts of diffusers and transformers that are not used
    here.
    """
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [
        (log, log.get_verbosity(), log.is_progress_bar_enabled())
        for log in (of_diffusers, of_transformers)
    ]
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
