import io

import numpy as np
import pytest
import torch
import trimesh
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from dsd_lab.cameras import BANK, HELD_OUT, Camera, orbit, project
from dsd_lab.scene import Field, GridField, Rendering, Scene
from dsd_lab.viz import scenes
from dsd_lab.viz.pictures import png
from dsd_lab.viz.style import COLOURS


def pixels(data):
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).double() / 255


@pytest.fixture(scope="module")
def lump():
    """A small red lump on the right of the origin, in a coarse grid."""
    scene = Scene(GridField(9))
    with torch.no_grad():
        scene.field.grid[:, 0] = -9
        scene.field.grid[0, 0, 3:6, 3:6, 5:8] = 3
        scene.field.grid[:, 1], scene.field.grid[:, 2:] = 4, -4
    return scene


# ---- what a rendering shows ----------------------------------------------------------------------


def test_looks_of_a_rendering():
    opacity, depth = torch.zeros(2, 1, 1, 1, 3)
    opacity[..., 1:], depth[..., 1], depth[..., 2] = 1, 2.0, 4.0
    normals = torch.zeros(1, 3, 1, 3)
    normals[0, 2, 0, 1], normals[0, 0, 0, 2] = 1, -1
    seen = Rendering(torch.full((1, 3, 1, 3), 1.2), opacity, depth, normals, *(torch.zeros(0),) * 4)
    shown = scenes.looks(seen)
    assert tuple(shown) == scenes.LOOKS
    assert all(picture.shape == (1, 3, 1, 3) for picture in shown.values())
    assert shown["colour"].max() == 1
    assert shown["opacity"][0, :, 0].T.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    nothing, near, far = shown["depth"][0, :, 0].T
    assert nothing.tolist() == [1, 1, 1]
    assert near.tolist() == pytest.approx([0.993, 0.906, 0.144], abs=2e-3)  # yellow
    assert far.tolist() == pytest.approx([0.267, 0.005, 0.329], abs=2e-3)  # blue
    assert shown["normals"][0, :, 0].T.tolist() == [[1, 1, 1], [0.5, 0.5, 1], [0, 0.5, 0.5]]
    assert tuple(scenes.looks(seen._replace(normals=None))) == scenes.LOOKS[:3]


def test_a_grid_of_views_is_headed_by_its_cameras():
    true, fit = torch.rand(2, 2, 3, 8, 8)
    figure = scenes.views_grid({"true": true, "fit": fit}, [Camera(0, 20), Camera(-22.5, 0)], "x")
    assert [" ".join(t.get_text().split()) for t in figure.axes[0].get_xticklabels()] == [
        "0° 20° up",
        "-22.5° 0° up",
    ]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["true", "fit"]


def test_scenes_turn_once_around_in_a_small_film(lump, monkeypatch):
    film = scenes.turning({"a": lump, "b": lump, "c": lump}, "three lumps", frames=6)
    assert film.alt == "three lumps"
    moving = Image.open(io.BytesIO(film.data))
    assert moving.n_frames == 6 and moving.info["loop"] == 0
    red = []
    for k in range(6):
        moving.seek(k)
        shown = torch.from_numpy(np.array(moving.convert("RGB"))).double() / 255
        third = shown[:, : shown.shape[1] // 3]  # of the first: right in front, left from behind
        found = ((third[..., 0] - third[..., 1]) > 0.4).nonzero()[:, 1].double().mean()
        red.append(float(found / third.shape[1]))
    assert red[0] > 0.5 > red[3]
    monkeypatch.setattr(scenes, "FILM", 1000)
    with pytest.raises(ValueError, match="the film has .* kB; fewer scenes, frames or pixels"):
        scenes.turning(lump, "a lump", frames=2)


def test_a_circle_shows_where_views_seem_to_be_taken_from():
    right, janus = torch.arange(8) * 45.0, torch.zeros(8)
    figure = scenes.seen_from({"told": right, "front only": janus}, "a bear")
    orange = [
        sum(line.get_color() == COLOURS[1] for line in axes.lines) / 3 for axes in figure.axes
    ]
    assert orange == [0, 5]  # 90, 135, 180, 225 and 270 degrees off
    assert [axes.get_title() for axes in figure.axes] == ["told", "front only"]
    seen = [line.get_xdata()[0] for line in figure.axes[1].lines[2::3]]
    assert np.allclose(np.cos(seen), 1)  # all at the front


# ---- the viewer ----------------------------------------------------------------------------------


def test_the_viewer_shows_a_fresh_rendering_of_each_place(lump):
    viewer = scenes.orbit_viewer(lump, size=32, azimuth=0, elevation=0)
    assert repr(viewer) == "Explorer(azimuth, elevation, size, shows)"
    shown = [viewer.picture.value]
    for azimuth, elevation in ((90, 0), (90, 60), (0, 0)):
        fact = viewer.set(azimuth=azimuth, elevation=elevation)
        assert viewer.picture.value == png(scenes.look_from(lump, azimuth, elevation, 32)[0])
        assert fact.startswith(f"azimuth {azimuth}, elevation {elevation}")
        shown.append(viewer.picture.value)
    assert len(set(shown)) == 3
    assert shown[0] == shown[-1]


def test_the_viewers_picture_is_the_scenes_own(lump):
    """The lump is on the right from the front and on the left from behind, as red and as large as
    it is rendered.
    """
    for azimuth in (0, 180):
        drawn = pixels(
            scenes.orbit_viewer(lump, size=32, azimuth=azimuth, elevation=0).picture.value
        )
        truth = lump.images([Camera(azimuth, 0)], 32)[0]
        red = (drawn[..., 0] - drawn[..., 1]).clamp(min=0)
        want = (truth[0] - truth[1]).clamp(min=0)
        side = red[:, red.shape[1] // 2 :].sum() > red[:, : red.shape[1] // 2].sum()
        assert bool(side) == (azimuth == 0)
        dots = round(2.4 * 110 / 32) ** 2
        assert red.sum().item() == pytest.approx(dots * want.sum().item(), rel=0.02)


def test_the_viewer_follows_a_scene_that_changes(lump):
    scene = Scene(GridField(9))
    viewer = scenes.orbit_viewer(scene, size=32)
    before = viewer.picture.value
    viewer.refresh()
    assert viewer.picture.value == before
    scene.load_state_dict(lump.state_dict())
    viewer.refresh()
    assert viewer.picture.value == png(scenes.look_from(lump, 30, 20, 32)[0]) != before


def test_the_viewer_changes_size_and_what_it_shows(lump):
    viewer = scenes.orbit_viewer(lump, size=48)
    assert viewer.controls["size"].value == 48
    seen = {}
    for shows in scenes.LOOKS:
        viewer.set(shows=shows)
        seen[shows] = viewer.picture.value
    assert len(set(seen.values())) == 4
    viewer.set(size=32)
    assert viewer.picture.value not in seen.values()
    assert "Error" not in viewer.fact


def test_a_coarse_look_is_as_large_and_repeats_its_pixels(lump):
    sharp, coarse = (scenes.look_from(lump, 30, 20, 96, coarse=c)[0] for c in (False, True))
    assert png(sharp) != png(coarse)
    assert (sharp.get_size_inches() == coarse.get_size_inches()).all()
    shown = coarse.axes[0].images[0].get_array()
    few = np.asarray(scenes.look_from(lump, 30, 20, 48)[0].axes[0].images[0].get_array())
    assert np.array_equal(shown, few.repeat(2, 0).repeat(2, 1))
    assert png(scenes.look_from(lump, 30, 20, 32, coarse=True)[0]) == png(
        scenes.look_from(lump, 30, 20, 32)[0]
    )


@pytest.mark.parametrize(("count", "shows", "few"), [(4, "colour", 24), (1, "normals", 24)])
def test_a_coarse_look_at_more_has_fewer_pixels(lump, count, shows, few):
    several = {str(k): lump for k in range(count)}
    shown, sharp = (
        np.asarray(
            scenes.look_from(several, 30, 20, size, shows, c)[0].axes[0].images[0].get_array()
        )
        for size, c in ((96, True), (few, False))
    )
    assert np.array_equal(
        shown[:96, :96], sharp[:few, :few].repeat(96 // few, 0).repeat(96 // few, 1)
    )


def test_several_scenes_stand_side_by_side_under_their_names(lump):
    empty = Scene(GridField(3))
    with torch.no_grad():
        empty.field.grid[:, 0] = -40
    figure, fact = scenes.look_from({"lump": lump, "nothing": empty}, 0, 0, 32)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["lump", "nothing"]
    assert fact.endswith("nothing 0%")
    left, right = np.array_split(figure.axes[0].images[0].get_array(), 2, axis=1)
    assert left.min() < 0.2
    assert right.min() > 0.99
    assert scenes.look_from([lump, empty], 0, 0, 32)[1].endswith("2 0%")
    assert not figure.axes[0].get_yticklabels()[0].get_text()


def test_the_viewer_refuses_what_it_cannot_show(lump):
    with pytest.raises(ValueError, match="no scene"):
        scenes.orbit_viewer({})
    with pytest.raises(ValueError, match="colour, opacity, depth, normals"):
        scenes.look_from(lump, 0, 0, shows="colours")


# ---- rays and cameras ----------------------------------------------------------------------------


def test_a_ray_figure_draws_the_worked_example():
    """Three samples that stop 1/2, 3/4 and 1/2 of what reaches them."""
    density = torch.tensor([2.0, 4.0, 2.0]).log() / 0.5
    figure = scenes.ray_figure(torch.tensor([2.25, 2.75, 3.25]), density, 0.5, torch.eye(3))
    top, middle, bottom = figure.axes
    assert top.lines[0].get_ydata().tolist() == pytest.approx(density.tolist())
    assert middle.lines[0].get_ydata().tolist() == pytest.approx([1, 1 / 2, 1 / 8])
    assert [bar.get_height() for bar in bottom.patches] == pytest.approx([1 / 2, 3 / 8, 1 / 16])
    assert [bar.get_x() + bar.get_width() / 2 for bar in bottom.patches] == pytest.approx(
        [2.25, 2.75, 3.25]
    )
    assert [bar.get_facecolor()[:3] for bar in bottom.patches] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    with pytest.raises(ValueError, match=r"\(3,\), \(2,\)"):
        scenes.ray_figure(torch.zeros(3), torch.zeros(2), 0.5)


def test_a_rig_shows_every_camera_whole_and_where_it_stands():
    figure = scenes.camera_rig(
        {"to fit": BANK, "held out": HELD_OUT},
        torch.zeros(5, 3),
        torch.rand(5, 3),
        {"a ray": torch.tensor([[0.0, 0, 3], [0, 0, -1]])},
        "the set-up",
    )
    axes = figure.axes[0]
    named = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert named == ["unit sphere", "to fit", "held out", "a ray"]
    outlines = [
        np.stack(line.get_data_3d(), 1) for line in axes.lines if len(line.get_data_3d()[0]) == 17
    ]
    tips = {tuple(np.round(outline[5], 6)) for outline in outlines}
    where = [camera.position for camera in (*BANK, *HELD_OUT)]
    assert tips == {tuple(np.round([x.item(), -z.item(), y.item()], 6)) for x, y, z in where}
    for outline in outlines:  # each pyramid opens towards the middle
        assert np.linalg.norm(outline[:5], axis=1).max() < 2.8
    FigureCanvasAgg(figure).draw()
    width, height = figure.get_size_inches() * figure.dpi
    from mpl_toolkits.mplot3d import proj3d

    for outline in outlines:
        x, y, _ = proj3d.proj_transform(*outline.T, axes.get_proj())
        dots = axes.transData.transform(np.stack([x, y], 1))
        assert dots.min() > 0
        assert (dots < [width, height]).all()


# ---- meshes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def box():
    """A box on the right of the origin, its right half blue and its left half red."""
    mesh = trimesh.creation.box((0.4, 0.4, 0.4)).subdivide().subdivide()
    mesh.apply_translation((0.5, 0, 0))
    colour = np.where(mesh.vertices[:, :1] > 0.5, [[0, 0, 255, 255]], [[255, 0, 0, 255]]).astype(
        np.uint8
    )
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colour, process=False)


def test_a_mesh_figure_holds_the_mesh(box):
    figure = scenes.mesh_figure(box, "a box")
    drawn = figure.data[0]
    assert np.allclose(np.stack([drawn.x, drawn.y, drawn.z], 1), box.vertices, atol=1e-6)
    assert np.array_equal(np.stack([drawn.i, drawn.j, drawn.k], 1), box.faces)
    assert list(drawn.vertexcolor) == [
        "#0000ff" if x > 0.5 else "#ff0000" for x in box.vertices[:, 0]
    ]
    assert figure.layout.scene.camera.up.y == 1
    assert len(figure.to_json()) < 120 * len(box.faces) + 20_000


def test_a_mesh_picture_is_where_the_camera_sees_it(box):
    for camera in orbit(4, elevation=20.0, start=10.0):
        picture = scenes.mesh_picture(box, camera, 64)
        assert picture.shape == (3, 64, 64)
        covered = (picture.amin(0) < 0.5).nonzero().double() + 0.5
        corners = project(torch.from_numpy(box.vertices), camera, 64)
        low, high = corners.amin(0), corners.amax(0)
        assert covered.amin(0).flip(0).tolist() == pytest.approx(low.tolist(), abs=1.1)
        assert covered.amax(0).flip(0).tolist() == pytest.approx(high.tolist(), abs=1.1)
        assert picture[:, 0, 0].tolist() == [1, 1, 1]


def test_a_mesh_picture_hides_what_is_behind(box):
    right, left = (
        scenes.mesh_picture(box, Camera(90, 0), 32),
        scenes.mesh_picture(box, Camera(-90, 0), 32),
    )
    assert right[:, 16, 16].tolist() == [0, 0, 1]
    assert left[:, 16, 16].tolist() == [1, 0, 0]


def test_the_mesh_of_a_field_looks_like_the_field():
    class Ball(Field):
        scale = torch.ones(())

        def forward(self, points):
            inside = torch.sigmoid(80 * (0.6 - points.norm(dim=1)))
            return 100 * inside, (points + 1) / 2

    scene = Scene(Ball())
    camera = Camera(35, 25)
    picture, volume = (
        scenes.mesh_picture(scene.mesh(20, 48), camera, 48),
        scene.images([camera], 48, 128)[0],
    )
    assert (picture - volume).abs().mean() < 0.03


# ---- objects of several methods ------------------------------------------------------------------


def study_row(prompt, method, reached, distinct, pairwise=(0.2, 0.1, 0.3), scenes=8):
    return {
        "prompt": prompt,
        "method": method,
        "scenes": scenes,
        "distinct": distinct,
        "reached": reached,
        "pairwise": pairwise and list(pairwise),
        "distance": [0.05, 0.04, 0.06],
    }


def test_an_objects_figure_has_a_line_a_method_and_a_colour_a_prompt():
    reached = {"SDS": 1, "DSD": 5}
    rows = [
        study_row(prompt, method, reached[method], 5)
        for prompt in ("a chair", "a dragon")
        for method in reached
    ]
    figure = scenes.objects_figure(rows, "objects", "credit")
    FigureCanvasAgg(figure).draw()
    count, distance, pairwise = figure.axes
    assert [t.get_text() for t in count.get_yticklabels()] == ["SDS", "DSD"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a chair", "a dragon"]
    dots = [
        (
            float(line.get_xdata()[0]),
            round(float(line.get_ydata()[0])),
            line.get_markerfacecolor() == "white",
        )
        for line in count.lines
        if len(line.get_xdata())
    ]
    assert sorted(dots) == [
        (1, 0, False),
        (1, 0, False),
        (5, 0, True),
        (5, 0, True),
        (5, 1, False),
        (5, 1, False),
    ]
    assert len(distance.containers) == len(pairwise.containers) == 4


def test_an_objects_figure_says_who_had_fewer_seeds():
    figure = scenes.objects_figure(
        [study_row("a chair", "SDS", 1, 1), study_row("a chair", "DSD ode", 1, 1, scenes=4)]
    )
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["SDS", "DSD ode (4 seeds)"]


def test_an_objects_figure_does_without_what_was_not_measured():
    figure = scenes.objects_figure([study_row("a chair", "SDS", 1, 1, pairwise=None)])
    assert [len(axes.containers) for axes in figure.axes] == [0, 1, 0]
    with pytest.raises(ValueError, match="nothing to show"):
        scenes.objects_figure([])
