"""The methods: one short file each, whose body reads like its formula. `METHODS` holds them by name."""

from .base import Defaults, Evaluations, Method, State
from .dsd import DSD
from .dsd_star import DSDStar
from .sds import SDS

METHODS: dict[str, type[Method]] = {"sds": SDS, "dsd": DSD, "dsd-star": DSDStar}

__all__ = ["DSD", "METHODS", "SDS", "DSDStar", "Defaults", "Evaluations", "Method", "State"]
