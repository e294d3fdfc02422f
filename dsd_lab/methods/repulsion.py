"""Repulsion: what pushes the seeds of a prompt apart, for any method (RSD, arXiv 2406.16683)."""

import math
from collections.abc import Hashable, Sequence

import torch

from ..shapes import Batch

FEWEST = 3  # the kernel's width is that of a median over log(N - 1)


def repel(x: Batch, width: float | None = None) -> Batch:
    """R of each of N particles (N, *shape), away from the near ones: (N, *shape).

        R_i = sum_{j != i} k_ij 2 (x_i - x_j) / h / sum_{j != i} k_ij,    k_ij = exp(-d_ij^2 / h)
        h = (median_{i != j} d_ij)^2 / log(N - 1),    d_ij = |x_i - x_j|

    width: h; by default as above, which needs N >= 3 (with N = 3, log 2). Source: arXiv 2406.16683.
    """
    flat = x.flatten(1)
    others = ~torch.eye(len(flat), dtype=torch.bool, device=x.device)
    squares = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square()
    h = squares[others].median() / math.log(len(flat) - 1) if width is None else width
    if not h > 0:  # most are at one place, as at a common start: there is no way to part them
        return torch.zeros_like(x)
    k = torch.where(others, -squares / h, -torch.inf).softmax(1)  # sums to 1 over j
    return (2 / h * (flat - k @ flat)).reshape(x.shape)


def repel_groups(x: Batch, groups: Sequence[Hashable]) -> Batch:
    """R among the items of each group, like x."""
    force = torch.zeros_like(x)
    for name in dict.fromkeys(groups):
        items = torch.tensor([i for i, other in enumerate(groups) if other == name])
        force[items] = repel(x[items])
    return force


def check_groups(groups: Sequence[Hashable]) -> None:
    """Raises ValueError unless each group has three items at least."""
    for name in dict.fromkeys(groups):
        count = sum(other == name for other in groups)
        if count < FEWEST:
            raise ValueError(
                f"repulsion pushes the seeds of a prompt apart, of a batch at least {FEWEST}; "
                f"here {count}: give the seeds of a prompt in one batch"
            )
