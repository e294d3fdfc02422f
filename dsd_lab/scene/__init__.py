"""Scenes in three dimensions: fields, their pictures and meshes, and what keeps them in shape."""

from .background import NeuralBackground
from .field import Field, GridField, HashField, Occupancy
from .fit import fit_views, fitting, psnr
from .lights import Lights, Shading
from .regularisers import REFERENCE, Ramp, regularisation
from .render import Rendering, render
from .scene import Scene

__all__ = [
    "REFERENCE",
    "Field",
    "GridField",
    "HashField",
    "Lights",
    "NeuralBackground",
    "Occupancy",
    "Ramp",
    "Rendering",
    "Scene",
    "Shading",
    "fit_views",
    "fitting",
    "psnr",
    "regularisation",
    "render",
]
