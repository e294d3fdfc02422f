"""How scenes are judged: distances and counts by hand, and objects whose sides are known."""

import math

import pytest
import torch

from dsd_lab.cameras import HELD_OUT, Camera, orbit
from dsd_lab.metrics_scene import janus, judge, judge_views, seen_as, true_views
from dsd_lab.worlds import ToyboxWorld, make_toys, render

CAMERAS = (Camera(10, 10), Camera(130, 30), Camera(-110, 30))


@pytest.fixture(scope="module")
def world():
    """Three chairs, then a mug and a rocket; judging needs no pictures of the bank."""
    toys = make_toys(["chair", "chair", "chair", "mug", "rocket"], [0, 1, 2, 0, 0])
    prompts = ("a chair", "a mug", "a rocket", *toys.captions)
    return ToyboxWorld(prompts, toys, torch.tensor([0, 0, 0, 1, 2]), torch.arange(5), orbit(1),
                       torch.zeros(5, 1, 3, 16, 16, dtype=torch.uint8))


class Toy:
    """What stands for a scene: one toy of the world, turned by some degrees, or one that shows its front to every camera."""

    def __init__(self, world, number, turned=0.0, facing=None):
        self.toys, self.turned, self.facing = world.toys.subset(number), turned, facing

    def images(self, cameras, size):
        self.asked = cameras
        side = [camera.azimuth - self.turned if self.facing is None else self.facing for camera in cameras]
        return render(self.toys, [Camera(a, c.elevation) for a, c in zip(side, cameras, strict=True)], size).rgb[0]


def test_true_views(world):
    views = true_views(world, "a chair", CAMERAS, 16)
    assert views.shape == (3, 3, 3, 16, 16) and true_views(world, "a chair", CAMERAS, 16) is views
    one = render(make_toys("chair", [2]), [CAMERAS[1]], 16).rgb[0, 0]
    assert (views[2, 1] - one).abs().mean() < 1e-3
    assert true_views(world, "a mug", size=16).shape == (1, len(HELD_OUT), 3, 16, 16)


def test_judge_views_by_hand(world):
    """The first chair, the third, and twice the third with all values moved: by 0.08, and by 0.3 in one of the three views."""
    true = true_views(world, "a chair", CAMERAS, 16).double()
    one_view = torch.tensor([0, 0.3, 0], dtype=torch.float64)[:, None, None, None]
    got = judge_views(torch.stack([true[0], true[2], true[2] - 0.08, true[2] - one_view]), world, "a chair", CAMERAS)
    far = 0.3 / math.sqrt(3)
    apart = (true[0] - true[2]).square().mean().sqrt().item()
    assert apart > 0.1
    assert (got.scenes, got.objects, got.nearest, got.distinct, got.reached) == (4, 3, (0, 2, 2, 2), 2, 2)
    assert got.distances == pytest.approx((0, 0, 0.08, far), abs=1e-7)
    assert got.distance.value == pytest.approx((0.08 + far) / 4) and got.distance.low <= got.distance.value <= got.distance.high
    pairs = [apart, 0.08, far, math.sqrt((2 * 0.08**2 + 0.22**2) / 3),
             *((true[0] - other).square().mean().sqrt().item() for other in (true[2] - 0.08, true[2] - one_view))]
    assert got.pairwise.value == pytest.approx(sum(pairs) / 6)
    assert got.psnr == pytest.approx((120 + 120 - 20 * math.log10(0.08) - 20 * math.log10(far)) / 4)  # 120 is the most it says


def test_reached_is_within_a_radius_and_distinct_is_at_any(world):
    true = true_views(world, "a chair", CAMERAS, 16)
    got = judge_views(torch.stack([true[1] + 0.2, true[0] + 0.099]), world, "a chair", CAMERAS)
    assert (got.distinct, got.reached, got.pairwise) == (2, 1, None) and got.nearest == (1, 0)
    assert judge_views(true[1:2] + 0.101, world, "a chair", CAMERAS).reached == 0


def test_judge_looks_at_scenes_from_the_cameras(world):
    scenes = [Toy(world, 2), Toy(world, 0), Toy(world, 2)]
    got = judge(scenes, world, "a chair", CAMERAS, 16)
    assert got.nearest == (2, 0, 2) and got.distance.value < 0.01 and (got.scenes, got.distinct, got.reached) == (3, 2, 2)
    turned = judge([Toy(world, 0, turned=120)], world, "a chair", CAMERAS, 16)
    assert turned.distance.value > 0.05


@pytest.mark.parametrize("shape", [(2, 2, 3, 16, 16), (3, 3, 16, 16)])
def test_judge_wants_a_view_a_camera(shape, world):
    with pytest.raises(ValueError, match=r"views must be \(B, 3, 3, H, W\), one a camera"):
        judge_views(torch.zeros(shape), world, "a chair", CAMERAS)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_object_with_one_face(number, world):
    scene = Toy(world, number)
    assert seen_as(scene, world, "a chair", size=32).tolist() == [0, 45, 90, 135, 180, 225, 270, 315]
    assert janus(scene, world, "a chair", size=32) == 0


def test_a_face_on_every_side(world):
    """Its eight views are off by 0, 45, 90, 135, 180, 135, 90, 45 degrees: five of them by more than 60."""
    scene = Toy(world, 1, facing=0.0)
    assert seen_as(scene, world, "a chair", size=32).tolist() == [0] * 8
    assert janus(scene, world, "a chair", size=32) == 5 / 8
    assert janus(scene, world, "a chair", views=6, size=32) == 3 / 6  # by 0, 60, 120, 180, 120, 60
    assert janus(Toy(world, 1, facing=90.0), world, "a chair", views=4, size=32) == 3 / 4


def test_a_turned_object_is_off_by_its_turn(world):
    """Turned by 90 degrees: from 0 one sees what the true one shows from 270. A turn of 45 is within the 60."""
    assert seen_as(Toy(world, 1, turned=90), world, "a chair", views=4, size=32).tolist() == [270, 0, 90, 180]
    assert janus(Toy(world, 1, turned=90), world, "a chair", size=32) == 1
    assert janus(Toy(world, 1, turned=45), world, "a chair", size=32) == 0


def test_it_is_measured_against_the_nearest_object_and_its_elevation(world):
    """All eight views together choose the object, from cameras at the elevation asked for."""
    scene = Toy(world, 2)
    assert janus(scene, world, "a chair", elevation=40.0, size=32) == 0 and scene.asked == orbit(8, 40.0)
    assert janus(Toy(world, 1, facing=0.0), world, world.toys.captions[1], size=32) == 5 / 8
