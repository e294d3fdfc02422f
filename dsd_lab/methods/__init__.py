"""The methods: one short file each, whose body reads like its formula. `METHODS` holds them by
name.
"""

from .asd import ASD
from .base import Defaults, Evaluations, Method, State
from .consistent import ConsistentODE
from .csd import CSD
from .dds import DDS
from .dsd import DSD
from .dsd_star import DSDStar
from .fixed_noise import CFD, FSD
from .ism import ISM
from .nfsd import NFSD
from .sdi import SDI
from .sds import SDS
from .vsd.vsd import VSD

METHODS: dict[str, type[Method]] = {
    "sds": SDS,
    "asd": ASD,
    "sdi": SDI,
    "consistent": ConsistentODE,
    "fsd": FSD,
    "cfd": CFD,
    "dsd": DSD,
    "dsd-star": DSDStar,
    "vsd": VSD,
    "csd": CSD,
    "nfsd": NFSD,
    "ism": ISM,
    "dds": DDS,
}

__all__ = [
    "ASD",
    "CFD",
    "CSD",
    "DDS",
    "DSD",
    "FSD",
    "ISM",
    "METHODS",
    "NFSD",
    "SDI",
    "SDS",
    "VSD",
    "ConsistentODE",
    "DSDStar",
    "Defaults",
    "Evaluations",
    "Method",
    "State",
]
