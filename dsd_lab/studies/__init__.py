"""Grids of experiments that can be stopped and go on; what is made of their tables; reports;
timings.
"""

from .study import Grid, Setting, Study, read, study, summarise

__all__ = ["Grid", "Setting", "Study", "read", "study", "summarise"]
