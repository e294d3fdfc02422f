"""Shapes of tensors by name, for signatures. The tests check them while the library runs."""

from jaxtyping import Float, Int
from torch import Tensor

Batch = Float[Tensor, "batch *shape"]  # x, noise, predictions: an entry a seed, or a view
Times = Int[Tensor, "batch"]  # a timestep for each of them
Images = Float[Tensor, "batch 3 height width"]  # pictures in [0, 1]
Latents = Float[Tensor, "batch 4 height width"]
Table = Float[Tensor, "first second"]  # a number for each pair of two batches
