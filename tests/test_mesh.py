import base64
import json
import struct

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import trimesh

from dsd_lab.scene import GridField, Scene
from dsd_lab.scene.field import lattice
from dsd_lab.scene.gltf import glb


def solid(distance, colour=None, resolution=48):
    """A scene that is dense where distance(points (R, R, R, 3)) is below 0; raw densities pass
    THRESHOLD's at 0.
    """
    field = GridField(resolution)
    points = lattice(resolution)
    level = np.log(np.expm1(10 / field.scale.item()))  # the raw value of a density of 10
    with torch.no_grad():
        field.grid[0, 0] = level - 100 * distance(points)
        if colour is not None:
            field.grid[0, 1:] = colour(points).logit().permute(3, 0, 1, 2)
    return Scene(field)


def ball(radius=0.6, centre=(0.0, 0.0, 0.0)):
    return lambda points: (points - torch.tensor(centre)).norm(dim=-1) - radius


def box(half):
    return lambda points: (points.abs() - torch.tensor(half)).amax(-1)


def test_the_mesh_of_a_ball():
    mesh = solid(ball()).mesh(resolution=64)
    voxel = 2 / 61
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.6).max() < voxel / 2
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(
        4 / 3 * np.pi * 0.6**3, rel=0.02
    )  # above 0: faces look outwards


def test_the_mesh_of_a_box_has_its_axes():
    half = (0.3, 0.6, 0.45)
    mesh = solid(box(half)).mesh(resolution=64)
    np.testing.assert_allclose(mesh.bounds, [[-h for h in half], half], atol=2 / 61)
    assert mesh.volume == pytest.approx(8 * np.prod(half), rel=0.06)


def test_a_thing_off_the_middle_is_where_it_is():
    mesh = solid(ball(0.2, (0.5, 0.3, -0.4))).mesh(resolution=64)
    np.testing.assert_allclose(mesh.centroid, [0.5, 0.3, -0.4], atol=0.01)


def test_colours_are_the_field_s():
    def halves(points):  # red above, blue below
        above = (points[..., 1:2] > 0).float()
        return 0.05 + 0.9 * (
            above * torch.tensor([1.0, 0, 0]) + (1 - above) * torch.tensor([0, 0, 1.0])
        )

    mesh = solid(ball(), halves).mesh(resolution=48)
    colour, y = mesh.visual.vertex_colors, mesh.vertices[:, 1]
    assert colour.shape == (len(y), 4) and (colour[:, 3] == 255).all()
    np.testing.assert_allclose(colour[y > 0.1, :3], [[242, 13, 13]] * (y > 0.1).sum(), atol=1)
    np.testing.assert_allclose(colour[y < -0.1, :3], [[13, 13, 242]] * (y < -0.1).sum(), atol=1)


def test_a_full_scene_is_closed_at_the_unit_sphere():
    mesh = solid(lambda points: points[..., 0] * 0 - 1).mesh(resolution=40)
    assert mesh.is_watertight
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 1).max() < 2 / 37


def test_no_surface():
    scene = Scene()
    with pytest.raises(
        ValueError,
        match=r"the largest density is 4\.\d+; a threshold above 0 and below it, such as 2",
    ):
        scene.mesh(threshold=50)
    assert scene.mesh(threshold=3, resolution=24).is_watertight
    with pytest.raises(ValueError, match="no surface"):
        scene.mesh(threshold=0)
    with torch.no_grad():
        scene.field.grid[:, 0] = -200
    with pytest.raises(
        ValueError, match="no surface at any density: the field is empty everywhere"
    ):
        scene.mesh()
    with pytest.raises(ValueError, match="resolution"):
        scene.mesh(resolution=3)


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_export(tmp_path, suffix):
    scene = solid(ball(), resolution=24)
    path = scene.export_mesh(tmp_path / f"ball{suffix}", resolution=24)
    again, mesh = trimesh.load(path, force="mesh"), scene.mesh(resolution=24)
    assert [file.name for file in tmp_path.iterdir()] == [f"ball{suffix}"]
    assert len(again.faces) == len(mesh.faces) and again.volume == pytest.approx(
        mesh.volume, rel=1e-4
    )
    np.testing.assert_allclose(again.bounds, mesh.bounds, atol=1e-5)
    again = trimesh.load(path, force="mesh", skip_materials=True)
    grey = 55 if suffix == ".glb" else 128  # linear: sRGB 128 is 0.2159 of white's light
    assert np.unique(again.visual.vertex_colors[:, :3]).tolist() == [grey]


def parsed(content):
    """A .glb file's JSON and arrays by the specification (glTF 2.0, sections 3.6 and 4)."""
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    gltf, rest = json.loads(content[20 : 20 + size]), 20 + size
    data_size, data_kind = struct.unpack_from("<I4s", content, rest)
    assert kind == b"JSON" and data_kind == b"BIN\0" and size % 4 == data_size % 4 == 0
    assert rest + 8 + data_size == len(content) and gltf["buffers"] == [{"byteLength": data_size}]
    arrays = []
    for accessor in gltf["accessors"]:
        view = gltf["bufferViews"][accessor["bufferView"]]
        kind = {5125: "<u4", 5126: "<f4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        part = content[rest + 8 + view["byteOffset"] :][: view["byteLength"]]
        arrays.append(np.frombuffer(part, kind).reshape(accessor["count"], width))
        assert view["byteOffset"] % 4 == 0 and width * arrays[-1].itemsize % 4 == 0 or width == 1
    return gltf, arrays


def test_a_glb_by_the_numbers_of_its_specification(tmp_path):
    colour = torch.tensor([200, 120, 60]) / 255
    scene = solid(ball(), lambda points: colour.expand(*points.shape[:-1], 3), 24)
    gltf, arrays = parsed(scene.export_mesh(tmp_path / "ball.glb", resolution=24).read_bytes())
    assert gltf["asset"]["version"] == "2.0" and "extensionsUsed" not in gltf
    (primitive,) = gltf["meshes"][0]["primitives"]
    place, normal, shade = (
        arrays[primitive["attributes"][name]] for name in ("POSITION", "NORMAL", "COLOR_0")
    )
    # ((200 / 255 + 0.055) / 1.055)^2.4 and so on: linear light
    np.testing.assert_allclose(shade, [[0.577580, 0.187821, 0.045186, 1.0]] * len(shade), atol=1e-5)
    material = gltf["materials"][primitive["material"]]
    assert material == {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-6)
    outwards = place / np.linalg.norm(place, axis=1, keepdims=True)
    assert (normal * outwards).sum(1).min() > 0.9
    ends = gltf["accessors"][primitive["attributes"]["POSITION"]]
    assert ends["min"] == place.min(0).tolist() and ends["max"] == place.max(0).tolist()
    corners = place[arrays[primitive["indices"]].reshape(-1, 3)]  # (F, 3, 3)
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((facing * corners.mean(1)).sum(1) > -1e-7).all()  # anticlockwise from outside


def test_an_unlit_glb(tmp_path):
    path = solid(ball(), resolution=24).export_mesh(
        tmp_path / "ball.glb", resolution=24, unlit=True
    )
    gltf, _ = parsed(path.read_bytes())
    assert gltf["extensionsUsed"] == ["KHR_materials_unlit"]
    assert gltf["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}


def test_a_dark_colour_keeps_its_shade():
    """Below 0.04045 the curve is a line; bytes would leave one level of 255."""
    mesh = trimesh.creation.box()
    mesh.visual.vertex_colors = [[5, 10, 11, 128]] * 8
    shade = parsed(glb(mesh))[1][2]
    np.testing.assert_allclose(shade[0], [0.0015176, 0.0030353, 0.0033465, 128 / 255], atol=1e-5)


def test_ply_and_obj_keep_srgb(tmp_path):
    colour = torch.tensor([200, 120, 60]) / 255
    scene = solid(ball(), lambda points: colour.expand(*points.shape[:-1], 3), 24)
    scene.export_mesh(tmp_path / "ball.ply", resolution=24)
    head, body = (tmp_path / "ball.ply").read_bytes().split(b"end_header\n")
    assert b"property uchar red" in head
    assert struct.pack("4B", 200, 120, 60, 255) in body[: len(body) // 2]
    text = scene.export_mesh(tmp_path / "ball.obj", resolution=24).read_text().splitlines()
    first = next(line for line in text if line.startswith("v ")).split()
    assert [float(x) * 255 for x in first[4:]] == pytest.approx([200, 120, 60], abs=1e-3)


def test_a_page_that_shows_it(tmp_path):
    """Whole in itself: the mesh's .glb, and no address of anything else."""
    scene = solid(ball(), resolution=24)
    scene.export_mesh(tmp_path / "ball.glb", resolution=24)
    text = scene.export_mesh(tmp_path / "a <ball>.html", resolution=24).read_text()
    assert base64.b64encode((tmp_path / "ball.glb").read_bytes()).decode() in text
    assert "<title>a &lt;ball&gt;</title>" in text and "http" not in text and "src=" not in text
    shown = scene.viewer(resolution=24, height=300).data
    assert 'height="300"' in shown and "atob(&quot;Z2xURg" in shown


def test_turntables(tmp_path):
    scene = solid(ball(0.3, (0.5, 0.0, 0.0)), resolution=24)
    frames = imageio.mimread(scene.turntable(tmp_path / "turn.gif", frames=4, size=32))
    assert len(frames) == 4 and frames[0].shape[:2] == (32, 32)
    dark = (255.0 - frames[0][..., :3].mean(-1)) @ np.arange(32.0)
    assert (
        dark.sum() / (255 - frames[0][..., :3].mean(-1)).sum() > 18
    )  # from the front, +x is on the right
    film = imageio.mimread(scene.turntable(tmp_path / "turn.mp4", frames=4, size=32))
    assert len(film) == 4 and film[0].shape == (32, 32, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["turn.gif", "turn.mp4"]


def test_files_that_cannot_be(tmp_path):
    scene = solid(ball(), resolution=16)
    for name in ("ball.stl", "ball"):
        with pytest.raises(ValueError, match=r"must end in \.glb, \.ply, \.obj or \.html"):
            scene.export_mesh(tmp_path / name)
    with pytest.raises(ValueError, match=r"must end in \.gif or \.mp4"):
        scene.turntable(tmp_path / "turn.avi")
    with pytest.raises(ValueError, match="even"):
        scene.turntable(tmp_path / "turn.mp4", size=33)
    with pytest.raises(FileNotFoundError):
        scene.export_mesh(tmp_path / "nowhere" / "ball.ply", resolution=16)
    assert not list(tmp_path.iterdir())
