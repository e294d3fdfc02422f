"""A coloured mesh as binary glTF 2.0, in the colours and with the material that the format means.

Source: Khronos, glTF 2.0 Specification, sections 3.7 (meshes), 3.9 (materials), 4 (GLB).
"""

import json
import struct

import numpy as np

UINT, FLOAT = 5125, 5126  # component types
VERTICES, INDICES = 34962, 34963  # what a buffer view is for
UNLIT = "KHR_materials_unlit"


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB values in [0, 1] as linear ones (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def glb(mesh, unlit: bool = False) -> bytes:
    """A trimesh.Trimesh with vertex colours (sRGB bytes) as a .glb file's content.

    COLOR_0 is linear, as the format demands; the material is no metal and rough, and
    vertices have normals. unlit: show the colours as they are, without light, in viewers that know
    KHR_materials_unlit.
    """
    colour = np.asarray(mesh.visual.vertex_colors, dtype=np.float64) / 255
    colour[:, :3] = to_linear(colour[:, :3])
    normal = np.array(mesh.vertex_normals, dtype=np.float64)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.where(length > 0, normal / np.where(length > 0, length, 1), (0, 1, 0))
    arrays = {
        "POSITION": np.asarray(mesh.vertices, dtype="<f4"),
        "NORMAL": normal.astype("<f4"),
        "COLOR_0": colour.astype("<f4"),
        "indices": np.asarray(mesh.faces, dtype="<u4").reshape(-1),
    }
    return _file(_description(arrays, unlit), b"".join(a.tobytes() for a in arrays.values()))


def _description(arrays: dict[str, np.ndarray], unlit: bool) -> dict:
    """The JSON part: one mesh, whose arrays lie one behind the other in one buffer."""
    accessors, views, offset = [], [], 0
    for name, array in arrays.items():
        types = {"<f4": FLOAT, "<u4": UINT}
        target = INDICES if name == "indices" else VERTICES
        views.append(
            {"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target}
        )
        accessor = {
            "bufferView": len(accessors),
            "componentType": types[array.dtype.str],
            "count": len(array),
            "type": "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}",
        }
        if name == "POSITION":
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        accessors.append(accessor)
        offset += array.nbytes
    vertices = {name: k for k, name in enumerate(arrays) if name != "indices"}
    primitive = {"attributes": vertices, "indices": len(arrays) - 1, "material": 0}
    material = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}
    extension = {"extensionsUsed": [UNLIT]} if unlit else {}
    return {
        "asset": {"version": "2.0", "generator": "dsd_lab"},
        **extension,
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material | ({"extensions": {UNLIT: {}}} if unlit else {})],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }


def _file(description: dict, data: bytes) -> bytes:
    """Header, JSON chunk (padded by spaces) and binary chunk, each of a multiple of 4 bytes."""
    text = json.dumps(description, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
