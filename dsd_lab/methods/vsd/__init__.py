from .vsd import VSD

__all__ = ["VSD"]
