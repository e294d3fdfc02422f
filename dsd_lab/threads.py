"""One thread for small tensors, so that a busy machine stays usable.

OpenMP's threads spin while they wait for each other: as soon as anything else runs on the machine,
small tensors become many times slower, and once torch is imported no setting stops that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside, and give the user's number back afterwards.

    A decorator of functions too, but not of generators, which would keep it while they pause.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
