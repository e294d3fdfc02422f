"""What is behind a scene: a colour for each direction that can be learned with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..checks import at_least


class NeuralBackground(nn.Module):
    """A colour for every direction, by a small network of two layers.

        colour(d) = sigmoid( relu(features(d) first) last )
        features(d) = d, sin(2^k pi d), cos(2^k pi d),  k = 0 .. frequencies - 1

    `background(directions)` takes unit vectors (N, 3) and returns (N, 3) in (0, 1). It starts as
    an even grey. seed: of the first weights.
    Source: DreamFusion (arXiv 2209.14988), section 3.2: an environment map as a network.
    """

    def __init__(self, frequencies: int = 2, hidden: int = 32, seed: int = 0):
        super().__init__()
        inputs = 3 * (1 + 2 * at_least("frequencies", frequencies))
        at_least("hidden", hidden)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("scales", math.pi * 2.0 ** torch.arange(frequencies))
        self.first = nn.Parameter(
            torch.randn(inputs, hidden, generator=generator) * math.sqrt(2 / inputs)
        )
        self.last = nn.Parameter(torch.zeros(hidden, 3))

    def forward(self, directions: Tensor) -> Tensor:
        waves = (directions[:, None] * self.scales[:, None]).flatten(1)
        features = torch.cat([directions, waves.sin(), waves.cos()], dim=1)
        return ((features @ self.first).relu() @ self.last).sigmoid()
