"""Grids of experiments that can be stopped and go on; what is made of them; reports; timings."""

from .grid import Grid, Setting
from .run import Study, read, study
from .summary import Summary, ranking, summarise

__all__ = ["Grid", "Setting", "Study", "Summary", "ranking", "read", "study", "summarise"]
