"""Cameras: positions and poses worked by hand, rays that project back, and the fixed and random
sets.
"""

import math

import pytest
import torch

from dsd_lab.cameras import (
    BANK,
    HELD_OUT,
    Camera,
    bank,
    check_cameras,
    nearest,
    orbit,
    project,
    rays,
    sample_cameras,
)

X, Y, Z = torch.eye(3, dtype=torch.float64)
ODD = [Camera(), Camera(33, -12, 2.5, 50), Camera(-150, 80, 4, 20), Camera(10, 90), Camera(10, -90)]


# Where a camera stands


@pytest.mark.parametrize(
    ("camera", "position"),
    [
        (Camera(0, 0, 3), (0, 0, 3)),
        (Camera(90, 0, 3), (3, 0, 0)),
        (Camera(180, 0, 2), (0, 0, -2)),
        (Camera(0, 90, 3), (0, 3, 0)),
        (Camera(0, 30, 2), (0, 1, math.sqrt(3))),
    ],
)
def test_position(camera, position):
    assert torch.allclose(camera.position, torch.tensor(position, dtype=torch.float64), atol=1e-12)
    assert camera.position.dtype == torch.float64


def test_pose_by_hand():
    wanted = torch.tensor([[0, 0, 1, 3], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]]).double()
    assert torch.allclose(Camera(90, 0, 3).pose, wanted, atol=1e-12)  # right is -z, backward is +x


@pytest.mark.parametrize("camera", ODD)
def test_pose_is_a_rotation(camera):
    turn = camera.pose[:3, :3]
    assert torch.allclose(turn.T @ turn, torch.eye(3).double(), atol=1e-12)
    assert torch.linalg.det(turn) == pytest.approx(1)
    assert torch.allclose(camera.position, camera.distance * turn[:, 2])


@pytest.mark.parametrize(
    ("given", "wrapped"), [(180, 180), (-180, 180), (190, -170), (-190, 170), (720, 0), (45, 45)]
)
def test_azimuth_wraps(given, wrapped):
    assert Camera(given).azimuth == wrapped
    assert Camera(given) == Camera(wrapped) and len({Camera(given), Camera(wrapped)}) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"elevation": 91}, "elevation must be from -90 to 90 degrees, got 91"),
        ({"distance": 0}, "distance must be greater than 0, got 0"),
        ({"fov": 180}, "fov must be between 0 and 180 degrees, got 180"),
        ({"azimuth": math.nan}, "azimuth must be finite, got nan"),
    ],
)
def test_camera_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        Camera(**wrong)


def test_camera_wants_numbers():
    with pytest.raises(TypeError, match="azimuth must be a number, got 'front'"):
        Camera("front")


# Rays and pixels


@pytest.mark.parametrize("camera", ODD)
def test_rays_project_back_to_pixel_centres(camera):
    origins, directions = rays([camera], 5, torch.float64)
    pixels = project(origins + 2.7 * directions, camera, 5)[0]
    row, column = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    assert torch.allclose(pixels, torch.stack([column, row], dim=-1).double() + 0.5, atol=1e-9)


def test_rays_shapes_and_length():
    origins, directions = rays(ODD, 4)
    assert origins.shape == directions.shape == (len(ODD), 4, 4, 3)
    assert origins.dtype == directions.dtype == torch.float32
    assert torch.allclose(directions.norm(dim=-1), torch.ones(len(ODD), 4, 4))


def test_one_pixel_looks_at_the_origin():
    _, directions = rays(ODD, 1, torch.float64)
    backward = torch.stack([camera.pose[:3, 2] for camera in ODD])
    assert torch.allclose(directions[:, 0, 0], -backward, atol=1e-12)


@pytest.mark.parametrize(
    ("point", "azimuth", "column", "row"),
    [
        (X, 0, 1, 0), (Z, 90, -1, 0), (-Z, 90, 1, 0), (X, 180, -1, 0),
        (Y, 0, 0, -1), (Y, 90, 0, -1), (-Y, 180, 0, 1),
    ],
)  # fmt: skip
def test_where_axes_land(point, azimuth, column, row):
    offset = project(0.5 * point, Camera(azimuth, 0), 64) - 32
    scale = 0.5 / 3 / math.tan(math.radians(20)) * 32  # half a unit across, three units away
    assert torch.allclose(offset, scale * torch.tensor([column, row]).double(), atol=1e-9)


def test_behind_the_camera_is_nan():
    assert project(torch.stack([4 * Z, Z]), Camera(0, 0), 8).isnan().all(-1).tolist() == [
        True,
        False,
    ]


def test_the_unit_sphere_is_in_the_picture():
    around = torch.nn.functional.normalize(
        torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    pixels = torch.stack([project(around, camera, 64) for camera in BANK + HELD_OUT])
    assert pixels.min() > 0 and pixels.max() < 64


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_size_is_checked(size):
    with pytest.raises(ValueError, match="size must be an int of at least 1"):
        rays([Camera()], size)
    with pytest.raises(ValueError, match="size must be an int of at least 1"):
        project(X, Camera(), size)


def test_project_wants_three_coordinates():
    with pytest.raises(ValueError, match=r"points must be \(\.\.\., 3\), got \(2,\)"):
        project(torch.zeros(2), Camera(), 8)


def test_check_cameras():
    assert check_cameras(iter(ODD)) == tuple(ODD)
    with pytest.raises(TypeError, match="cameras must be a sequence"):
        rays(Camera(), 8)
    with pytest.raises(ValueError, match="cameras is empty"):
        rays([], 8)
    with pytest.raises(TypeError, match="every camera must be a Camera, got 3"):
        rays([3], 8)


# Sets of cameras


def test_orbit():
    assert [camera.azimuth for camera in orbit(4, start=90)] == [90, 180, -90, 0]
    assert set(orbit(3, 10, 2, 30)) == {
        Camera(0, 10, 2, 30),
        Camera(120, 10, 2, 30),
        Camera(240, 10, 2, 30),
    }
    with pytest.raises(ValueError, match="views must be an int of at least 1, got 0"):
        orbit(0)


def test_bank():
    assert BANK == bank() and len(set(BANK)) == 24
    assert {camera.elevation for camera in BANK} == {0, 20, 40}
    assert BANK[:8] == orbit(8, elevation=0)
    assert len(set(HELD_OUT)) == 16 and not set(HELD_OUT) & set(BANK)


def test_sample_cameras():
    def draw(seed, count=50):
        return sample_cameras(count, torch.Generator().manual_seed(seed), distance=(2, 4))

    cameras = draw(0)
    assert cameras == draw(0) and cameras != draw(1) and cameras[:3] == draw(0, 3)
    assert len({camera.azimuth for camera in cameras}) == 50 and {
        camera.fov for camera in cameras
    } == {40}
    assert all(-10 <= camera.elevation <= 45 and 2 <= camera.distance <= 4 for camera in cameras)
    with pytest.raises(
        ValueError, match=r"fov must be \(low, high\) with low <= high, got \(50, 40\)"
    ):
        sample_cameras(1, torch.Generator(), fov=(50, 40))
    with pytest.raises(ValueError, match="count must be an int of at least 0, got -1"):
        sample_cameras(-1, torch.Generator())


def test_nearest():
    assert BANK[nearest(Camera(20, 12), BANK)] == Camera(0, 20)
    assert BANK[nearest(Camera(-178, 3), BANK)] == Camera(180, 0)
    assert nearest(Camera(5, 90), [Camera(0, 0), Camera(180, 80)]) == 1
