"""VSD: the method, and its e_phi in closed form, as a small network, and as an adapter."""

from .vsd import VSD

__all__ = ["VSD"]
