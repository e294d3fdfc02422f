"""The methods: one short file each, whose body reads like its formula, and the one table of their
named variants.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ..checks import did_you_mean, meant
from .asd import ASD
from .base import Defaults, Evaluations, Method
from .cfd import CFD
from .consistent import ConsistentODE
from .csd import CSD
from .dds import DDS
from .dsd import DSD
from .dsd_star import DSDStar
from .fsd import FSD
from .ism import ISM
from .nfsd import NFSD
from .pds import PDS
from .repulsion import repel
from .rfds import RFDS
from .rsd import RSD
from .sdi import SDI
from .sds import SDS
from .state import State
from .vsd.vsd import VSD

__all__ = [
    "ASD",
    "CFD",
    "CSD",
    "DDS",
    "DSD",
    "FSD",
    "ISM",
    "NFSD",
    "PDS",
    "RFDS",
    "RSD",
    "SDI",
    "SDS",
    "VARIANTS",
    "VSD",
    "ConsistentODE",
    "DSDStar",
    "Defaults",
    "Evaluations",
    "Method",
    "State",
    "Variant",
    "repel",
    "variant",
]


class Variant(NamedTuple):
    """A method with settings of its own. label: to show."""

    label: str
    kind: type[Method]
    settings: Mapping[str, object] = {}

    def make(self, **settings) -> Method:
        """The method, with further settings such as cfg."""
        return self.kind(**self.settings, **settings)


VARIANTS: dict[str, Variant] = {  # by the name on the command line
    "sds": Variant("SDS", SDS),
    "rfds": Variant("RFDS", RFDS),
    "rfds-rev": Variant("RFDS-Rev", RFDS, {"rounds": 1}),
    "rsd": Variant("RSD", RSD),
    "asd": Variant("ASD", ASD),
    "sdi": Variant("SDI", SDI),
    "sdi-late": Variant("SDI t_first 0.1", SDI, {"t_first": 0.1}),
    "sdi-cached": Variant("SDI cached", SDI, {"inversion": "cached"}),
    "consistent": Variant("ConsistentODE", ConsistentODE),
    "consistent-abstract": Variant("ConsistentODE abstract", ConsistentODE, {"sign": "abstract"}),
    "fsd": Variant("FSD", FSD),
    "cfd": Variant("CFD", CFD),
    "dsd": Variant("DSD", DSD),
    "dsd-snap": Variant("DSD snap", DSD, {"snap": True}),
    "dsd-unit": Variant("DSD unit gain", DSD, {"form": "unit"}),
    "dsd-x0": Variant("DSD x0", DSD, {"form": "x0"}),
    "dsd-reference": Variant("DSD reference", DSD, {"form": "reference"}),
    "dsd-star": Variant("DSD*", DSDStar),
    "vsd": Variant("VSD", VSD),
    "vsd-network": Variant("VSD network", VSD, {"particles": "network"}),
    "esd": Variant("VSD entropy 0.5", VSD, {"entropy": 0.5}),
    "csd": Variant("CSD", CSD),
    "nfsd": Variant("NFSD", NFSD),
    "ism": Variant("ISM", ISM),
    "dds": Variant("DDS", DDS),
    "pds": Variant("PDS", PDS),
}


def variant(name: str) -> Variant:
    """The variant of a name, in any case. Raises ValueError with the names, and the nearest."""
    known = meant(name, VARIANTS)
    if known is None:
        hint = did_you_mean(name, VARIANTS, cutoff=0)
        raise ValueError(f'unknown method "{name}";{hint} (methods: {", ".join(VARIANTS)})')
    return VARIANTS[known]
