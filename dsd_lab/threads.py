"""One thread for small tensors, so that a busy machine stays usable.

OpenMP's threads spin while they wait for each other: as soon as anything else runs on the machine,
small tensors become many times slower, and once torch is imported no setting stops that.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

LARGE = 50_000_000  # parameters: a network whose layers are worth a thread for each core


@contextmanager
def one_thread(*networks: nn.Module | None) -> Iterator[None]:
    """Compute on one thread inside, and give the user's number back afterwards.

    networks: what is computed, if it may be `LARGE`: then the user's number stays. A decorator of
    functions too, but not of generators, which would keep it while they pause.
    """
    before = torch.get_num_threads()
    sizes = [
        sum(p.numel() for p in network.parameters()) for network in networks if network is not None
    ]
    if max(sizes, default=0) < LARGE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
