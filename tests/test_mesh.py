import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import trimesh

from dsd_lab.scene import GridField, Scene
from dsd_lab.scene.field import lattice


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


@pytest.mark.parametrize("suffix", [".glb", ".ply"])
def test_export(tmp_path, suffix):
    scene = solid(ball(), resolution=24)
    path = scene.export_mesh(tmp_path / f"ball{suffix}", resolution=24)
    again, mesh = trimesh.load(path, force="mesh"), scene.mesh(resolution=24)
    assert [file.name for file in tmp_path.iterdir()] == [f"ball{suffix}"]
    assert len(again.faces) == len(mesh.faces) and again.volume == pytest.approx(
        mesh.volume, rel=1e-4
    )
    np.testing.assert_allclose(again.bounds, mesh.bounds, atol=1e-5)
    assert np.unique(again.visual.vertex_colors[:, :3]).tolist() == [128]


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
    for name in ("ball.obj", "ball"):
        with pytest.raises(ValueError, match=r"must end in \.glb or \.ply"):
            scene.export_mesh(tmp_path / name)
    with pytest.raises(ValueError, match=r"must end in \.gif or \.mp4"):
        scene.turntable(tmp_path / "turn.avi")
    with pytest.raises(ValueError, match="even"):
        scene.turntable(tmp_path / "turn.mp4", size=33)
    with pytest.raises(FileNotFoundError):
        scene.export_mesh(tmp_path / "nowhere" / "ball.ply", resolution=16)
    assert not list(tmp_path.iterdir())
