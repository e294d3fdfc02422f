"""What a run does to fit into memory, as presets by the gigabytes of a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ..checks import choice
from .autoencoder import compression
from .quiet import quiet


@dataclass(frozen=True)
class Memory:
    """How a run spends memory or time; its result is the same, but where it says otherwise.

    gigabytes: of the device that it is for. batch: items in one call of the network, None for all.
    points: of a scene, asked at once. size: of its largest pictures, which are enlarged from there.
    sliced: the autoencoder takes one picture at a time, and its gradient works it out again. tiled:
    pictures larger than its own in tiles, which shows a little. tiny: a tiny autoencoder takes its
    place, if the prior has one, which shows. readers_away: text encoders stay on the CPU but when
    they read.
    The numbers are ours, reckoned from the sizes of Stable Diffusion 2.1 and of the preset's field.
    """

    name: str
    gigabytes: float
    batch: int | None
    points: int | None
    size: int
    sliced: bool = True
    tiled: bool = False
    tiny: bool = False
    readers_away: bool = True


PRESETS = (  # the largest first
    Memory("40GB", 40, None, 2**17, 512, sliced=False, readers_away=False),
    Memory("24GB", 24, 16, 2**16, 512),
    Memory("16GB", 16, 8, 2**15, 256),
    Memory("8GB", 8, 4, 2**13, 128, tiled=True, tiny=True),
    Memory("laptop", 0, 4, 2**13, 64, tiny=True),
)
NAMES = tuple(memory.name for memory in PRESETS)


def memory_for(device: torch.device) -> Memory:
    """The largest preset for a device; a card of 24 GB says that it has a little less. A device
    that does not say gets the smallest.
    """
    ask = getattr(torch.get_device_module(device.type), "mem_get_info", None)
    gigabytes = 0.0 if ask is None else ask(device)[1] / 2**30
    return next(memory for memory in PRESETS if memory.gigabytes <= gigabytes / 0.9)


def pick_memory(wanted: str | Memory | None, device: torch.device) -> Memory | None:
    """A preset by name, or with "auto" the device's, which is printed. Raises ValueError for an
    unknown name.
    """
    if wanted is None or isinstance(wanted, Memory):
        return wanted
    if choice("memory", wanted, ("auto", *NAMES)) != "auto":
        return PRESETS[NAMES.index(wanted)]
    memory = memory_for(device)
    print(f"memory: preset {memory.name} for {device}")
    return memory


def smaller(memory: Memory) -> Memory | None:
    """The next smaller preset, None after the smallest."""
    return next((other for other in PRESETS if other.gigabytes < memory.gigabytes), None)


class Readers:
    """Text encoders, which are kept on the CPU but when they read, where memory asks for it."""

    def __init__(self, modules: Sequence[nn.Module | None]):
        self.modules, self.away = [module for module in modules if module is not None], False

    def keep_away(self, away: bool) -> None:
        """Keep them on the CPU from now on, or where they are next read."""
        self.away = away
        self._move("cpu" if away else None)

    @contextmanager
    def at(self, device: torch.device) -> Iterator[None]:
        """They are on the device within it."""
        self._move(device if self.away else None)
        try:
            yield
        finally:
            self._move("cpu" if self.away else None)

    def _move(self, device: torch.device | str | None) -> None:
        for module in self.modules if device is not None else ():
            module.to(device)


class FitsMemory:
    """What a network prior does to fit into memory, a part of `NetworkPrior`."""

    vae: nn.Module | None
    tiny: nn.Module | None = None
    modules: Sequence[nn.Module]
    readers: Readers
    max_batch: int | None
    sliced: bool = False
    device: torch.device
    network_dtype: torch.dtype

    def keep_tiny(self, vae: nn.Module) -> None:
        """Keep a tiny autoencoder, such as diffusers' `AutoencoderTiny`, to take the autoencoder's
        place where memory asks for it. Raises ValueError for one of other latents.
        """
        with quiet():
            self.tiny = check_tiny(vae, self.vae).to(self.device, self.network_dtype)
        self.modules = [*self.modules, self.tiny]

    def economise(self, memory: Memory) -> None:
        """Fit into so much memory from now on."""
        self.max_batch, self.sliced = memory.batch, memory.sliced
        self.vae = economical(self.vae, self.tiny, memory)
        self.readers.keep_away(memory.readers_away)


def economical(vae: nn.Module | None, tiny: nn.Module | None, memory: Memory) -> nn.Module | None:
    """The autoencoder to use, told how to spend memory: the tiny one, where there is one and memory
    asks for it.
    """
    vae = tiny if memory.tiny and tiny is not None else vae
    ways = {"slicing": memory.sliced, "tiling": memory.tiled and vae is not tiny}
    for way, wanted in ways.items() if vae is not None else ():
        getattr(vae, f"{'enable' if wanted else 'disable'}_{way}")()
    return vae


def check_tiny(tiny: nn.Module, vae: nn.Module | None) -> nn.Module:
    """The tiny autoencoder, frozen. Raises ValueError unless it has the latents of the other."""

    def latents(one):
        return one.config.latent_channels, compression(one)

    if vae is None or latents(tiny) != latents(vae):
        raise ValueError(
            "a tiny autoencoder must have the channels and the size of the latents of the one "
            f"whose place it takes, {vae and latents(vae)}; this one has {latents(tiny)}"
        )
    return tiny.requires_grad_(False).eval()
