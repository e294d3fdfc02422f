"""A scene's surface as coloured triangles, in files that other programs open."""

from pathlib import Path

import torch

from ..checks import at_least
from ..files import expanded, write_file, write_whole
from .field import Field, lattice
from .gltf import glb
from .page import page

SUFFIXES = (".glb", ".ply", ".obj", ".html")
THRESHOLD = 10.0


@torch.no_grad()
def surface(field: Field, threshold: float = THRESHOLD, resolution: int = 96):
    """The surface at which a field's density is `threshold`, by marching cubes: a trimesh.Trimesh
    with vertex colours.

    y is up, faces wind anticlockwise seen from outside, and one unit is the radius of the unit
    sphere, at which the surface is closed. threshold: 10 lets through exp(-1) of the light over a
    tenth of a unit. resolution: vertices a side.
    Raises ValueError if the density nowhere reaches the threshold, with one that it does reach if
    there is any.
    """
    import numpy as np
    import trimesh
    from skimage.measure import marching_cubes

    at_least("resolution", resolution, 4)
    # one vertex beyond the sphere on each side, where the density is 0
    reach = (resolution - 1) / (resolution - 3)
    points = lattice(resolution, reach).reshape(-1, 3).to(field.device, field.dtype)
    density = (
        torch.cat([field(part)[0] for part in points.split(2**18)])
        .reshape((resolution,) * 3)
        .permute(2, 1, 0)
    )
    largest = density.max().item()
    if not largest > 0:
        raise ValueError("no surface at any density: the field is empty everywhere")
    if not 0 < threshold < largest:
        raise ValueError(
            f"no surface at density {threshold:g}: the largest density is {largest:.3g}; a "
            f"threshold above 0 and below it, such as {largest / 2:.2g}, gives one"
        )
    step = 2 * reach / (resolution - 1)
    vertices, faces, _, _ = marching_cubes(
        density.float().cpu().numpy(), threshold, spacing=(step,) * 3, gradient_direction="ascent"
    )
    vertices = vertices - np.float32(reach)
    places = torch.from_numpy(vertices).to(points)
    colour = (
        torch.cat([field(part)[1] for part in places.split(2**18)])
        .mul(255)
        .round()
        .byte()
        .cpu()
        .numpy()
    )
    return trimesh.Trimesh(vertices, faces, vertex_colors=colour, process=False)


def export(mesh, path: str | Path, unlit: bool = False) -> Path:
    """Write a mesh as .glb, .ply, .obj or as an .html page that shows it, whole or not at all, and
    return the path. Raises ValueError for other suffixes.

    unlit: of a .glb, see `gltf.glb`; the others are not concerned.
    """
    path = check_suffix(path, SUFFIXES)
    kind = path.suffix.lower()
    if kind == ".glb":
        return write_file(path, glb(mesh, unlit))
    if kind == ".html":
        return write_file(path, page(mesh, path.stem))
    return write_whole(path, lambda place: mesh.export(place, file_type=kind[1:]))


def check_suffix(path: str | Path, allowed: tuple[str, ...]) -> Path:
    """`path` as a Path. Raises ValueError unless its suffix is one of `allowed`."""
    path = expanded(path)
    if path.suffix.lower() not in allowed:
        raise ValueError(f'"{path.name}" must end in {", ".join(allowed[:-1])} or {allowed[-1]}')
    return path
