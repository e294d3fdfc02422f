"""What every network prior shares: the device, the memory, one call for many questions, and the way
from pictures and back.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checks import batch_of
from ..gradients import through
from ..schedule import NoiseSchedule
from ..threads import one_thread
from .autoencoder import compression, from_latents, to_latents
from .base import Prior, Query
from .device import pick_device, pick_dtype
from .memory import FitsMemory, Readers
from .quiet import quiet
from .support import check_at_hand


class Call(NamedTuple):
    """What the network is asked once: x at t, and what else it is told, for some items.

    question: all but x and t. Two queries ask the same where theirs is equal, x is the same tensor,
    and t is equal.
    """

    x: Tensor
    t: Tensor
    question: Hashable

    def same(self, other: Call) -> bool:
        return (
            self.x is other.x
            and self.question == other.question
            and bool(torch.equal(self.t, other.t))
        )


class NetworkPrior(FitsMemory, Prior):
    """A prior with a network, in the latents of its autoencoder or, without one, in pixels.

    x has shape `shape`, (channels, H, W); pictures have shape `image_shape`, (3, H', W'). x is
    float32 whatever the network's own dtype is, and outputs come in x's dtype. The modules are
    moved to `device`, cast to `dtype` and frozen, in place. unet: the network, which may be a
    transformer. device: "auto" is cuda, else mps, else cpu. dtype: of the network; None is float32
    on a CPU, float16 elsewhere. float32_vae: whether the autoencoder is in float32 all the same.
    max_batch: items in one call of the network at most; None is all of them.
    """

    path_spacing = 20

    def __init__(
        self,
        name: str,
        unet: nn.Module,
        vae: nn.Module | None,
        others: Sequence[nn.Module],
        schedule: NoiseSchedule,
        shape: tuple[int, int, int],
        device: str | torch.device,
        dtype: torch.dtype | None,
        float32_vae: bool = False,
    ):
        super().__init__(shape, schedule)
        self.name, self.unet, self.vae = name, unet, vae
        self.modules = check_at_hand([m for m in (unet, vae, *others) if m is not None], name)
        self.readers = Readers(others)
        self.network_dtype = pick_dtype(dtype, pick_device(device))
        of_vae = torch.float32 if float32_vae else self.network_dtype
        for module in self.modules:
            freeze(module, of_vae if module is vae else self.network_dtype)
        self.image_shape = (3, *(compression(vae) * side for side in self.shape[1:]))
        self.to(device)

    def to(self, device: str | torch.device) -> NetworkPrior:
        """Moves the network, in place as modules are, and returns the prior."""
        self.device = pick_device(device)
        self._forget()
        with quiet():
            for module in self.modules:
                module.to(self.device)
        self.preferred_batch, self.max_batch = (16, 64) if self.device.type == "cpu" else (64, None)
        return self

    # ---- the network

    @abstractmethod
    def _forget(self) -> None:
        """Begin anew with what is kept of earlier predictions, which may be on another device."""

    @abstractmethod
    def _question(self, query: Query, term: str) -> Hashable:
        """What a term of a query asks for, beside x and t."""

    @abstractmethod
    def _conditions(self, questions: Sequence[tuple[Hashable, int]]) -> dict[str, Tensor]:
        """What the network is told, by name, an entry an item each, for questions about so many
        items one after the other.
        """

    @abstractmethod
    def _network(self, x: Tensor, time: Tensor, told: dict[str, Tensor]) -> Tensor:
        """The network's own output; channels beyond x's, a variance, are left out afterwards."""

    def _time(self, t: Tensor) -> Tensor:
        """What the network is told of t, (B,) and on the CPU."""
        return t

    def _outputs(self, queries: Sequence[Query]) -> list[dict[str, Tensor]]:
        # one run of the network for all queries and terms, in which the same is asked once
        calls, places = arranged(queries, self._question)
        answers = self._run(calls)
        return [
            {term: answers[k].to(query.x) for term, k in of_query.items()}
            for query, of_query in zip(queries, places, strict=True)
        ]

    def _run(self, calls: Sequence[Call]) -> tuple[Tensor, ...]:
        """The network's output for each call, in runs of `max_batch` items."""
        sizes = [len(call.x) for call in calls]
        shown = [self.schedule.to_input(call.x, call.t) for call in calls]
        x = torch.cat([each.to(self.device, self.network_dtype) for each in shown])
        time = self._time(torch.cat([call.t for call in calls])).to(self.device)
        told = self._conditions([(call.question, len(call.x)) for call in calls])
        size = self.max_batch or len(x)
        parts = [slice(i, i + size) for i in range(0, len(x), size)]
        of_parts = [{name: each[part] for name, each in told.items()} for part in parts]
        outputs = [self._part(x[p], time[p], of_p) for p, of_p in zip(parts, of_parts, strict=True)]
        return torch.cat(outputs).split(sizes)

    def _part(self, x: Tensor, time: Tensor, told: dict[str, Tensor]) -> Tensor:
        with fitting(len(x), self.device, "prior.max_batch"):
            return self._network(x, time, told)[:, : self.shape[0]]

    # ---- pictures

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to the prior's space, differentiably. Raises ValueError
        for another shape.
        """
        batch_of(self.image_shape, "images in [0, 1]", images)

        def latents(images):
            return to_latents((2 * images - 1).to(self.device), self.vae).to(images)

        half = self.network_dtype == torch.float16
        with one_thread(self.vae), fitting(len(images), self.device, "the batch"):
            parts = images.split(1) if self.sliced else [images]
            return torch.cat([through(latents, p, (), self.sliced, half) for p in parts])

    def decode(self, x: Tensor) -> Tensor:
        """From the prior's space to pictures (B, 3, H, W), clamped to [0, 1]. Raises ValueError for
        another shape.
        """
        batch_of(self.shape, "x", x)
        with one_thread(self.vae), fitting(len(x), self.device, "the batch"):
            pixels = from_latents(x.to(self.device), self.vae)
        return ((pixels.to(x) + 1) / 2).clamp(0, 1)


def arranged(
    queries: Sequence[Query], question: Callable[[Query, str], Hashable]
) -> tuple[list[Call], list[dict[str, int]]]:
    """The calls that queries need, each different one once, and where each query's terms are."""
    calls: list[Call] = []
    places = [
        {term: place(calls, Call(query.x, query.t, question(query, term))) for term in query.terms}
        for query in queries
    ]
    return calls, places


def freeze(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts a module, in place, and makes it one that is not trained.

    What it says overflows in float16, such as T5's "wo", stays in float32 there.
    """
    whole = getattr(module, "_keep_in_fp32_modules", None) if dtype == torch.float16 else None
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            kept = set(whole or ()) & set(name.split("."))
            tensor.data = tensor.data.to(torch.float32 if kept else dtype)
    module.requires_grad_(False).eval()


def place(calls: list[Call], call: Call) -> int:
    """Where the call stands among the calls, at their end if it is new."""
    for k, other in enumerate(calls):
        if other.same(call):
            return k
    calls.append(call)
    return len(calls) - 1


@contextmanager
def fitting(items: int, device: torch.device, setting: str) -> Iterator[None]:
    """Says what would fit where memory runs out. Raises MemoryError then."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise MemoryError(
            f"{items} items at once do not fit into the memory of {device}; "
            f"try {setting} = {max(1, items // 2)}"
        ) from error


def out_of_memory(error: Exception) -> bool:
    """Whether torch says with an error that memory has run out, of whatever device."""
    said = re.search("out of memory|not enough memory|can't allocate memory", str(error))
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(said)


def release(device: torch.device) -> None:
    """Give back what the device's allocator keeps for later."""
    if empty := getattr(torch.get_device_module(device.type), "empty_cache", None):
        empty()
