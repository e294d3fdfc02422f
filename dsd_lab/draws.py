"""All randomness: a seed's starting noise e* and the draws of its run, from explicit generators on
the CPU.

A seed draws the same bits alone and in any batch, on any device and in any dtype.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """`seeds` as a list. Raises TypeError or ValueError unless it is a non-empty sequence of ints
    in 0..2^63-1.
    """
    if isinstance(seeds, (int, str)) or not hasattr(seeds, "__iter__"):
        raise TypeError(f"seeds must be a sequence of ints such as [0, 1, 2, 3], got {seeds!r}")
    seeds = list(seeds)
    if not seeds:
        raise ValueError("seeds is empty; give at least one int, such as [0]")
    for seed in seeds:
        if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= int(seed) < 2**63:
            raise ValueError(f"every seed must be an int in 0..2^63-1, got {seed!r}")
    return [int(seed) for seed in seeds]


def generator_of(*parts: int | str) -> torch.Generator:
    """A generator on the CPU that depends on its arguments alone."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def starting_noise(
    seeds: Sequence[int], shape: tuple[int, ...], dtype=torch.float32, device="cpu"
) -> Tensor:
    """e* of each seed, N(0, I): (B, *shape). Drawn in float32, then cast and moved."""
    draw = [
        torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        for seed in check_seeds(seeds)
    ]
    return torch.stack(draw).to(device, dtype)


def run_generator(seed: int) -> torch.Generator:
    """The generator of a seed's run, made from the seed and the word "run"."""
    (seed,) = check_seeds([seed])
    return generator_of(seed, "run")


class Draws:
    """The random numbers of a run after e*: one generator a seed, one entry a seed."""

    def __init__(
        self, seeds: Sequence[int], shape: tuple[int, ...], dtype=torch.float32, device="cpu"
    ):
        self.shape, self.dtype, self.device = shape, dtype, device
        self.generators = [run_generator(seed) for seed in check_seeds(seeds)]

    def uniform(self) -> Tensor:
        """U[0, 1) for each entry: float64 (B,), on the CPU, where timesteps are made."""
        return torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in self.generators])

    def normal(self) -> Tensor:
        """N(0, I) for each entry: (B, *shape)."""
        draw = [torch.randn(self.shape, generator=g) for g in self.generators]
        return torch.stack(draw).to(self.device, self.dtype)

    def timesteps(self, low: int, high: int) -> Tensor:
        """U{low..high} for each entry: int64 (B,)."""
        return (low + (self.uniform() * (high - low + 1)).floor()).long()

    def state_dict(self) -> dict[str, Tensor]:
        return {"generators": torch.stack([g.get_state() for g in self.generators])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved.clone())  # set_state misreads a view into a larger tensor


class ViewDraws(Draws):
    """The draws of one object for some of its views: one generator, asked in the order of the
    views.

    generator: `run_generator` of the object's seed, which its cameras and rays are drawn with too.
    together: how many views, one after the other, share a draw of t.
    """

    def __init__(
        self,
        generator: torch.Generator,
        views: int,
        shape: tuple[int, ...],
        dtype=torch.float32,
        device="cpu",
        together: int = 1,
    ):
        self.generators, self.views, self.together = [generator], views, together
        self.shape, self.dtype, self.device = shape, dtype, device

    def uniform(self) -> Tensor:
        sets = self.views // self.together
        draw = torch.rand(sets, generator=self.generators[0], dtype=torch.float64)
        return draw.repeat_interleave(self.together)

    def normal(self) -> Tensor:
        draw = torch.randn((self.views, *self.shape), generator=self.generators[0])
        return draw.to(self.device, self.dtype)
