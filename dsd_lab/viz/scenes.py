"""Figures of things in space: cameras, rays, views and meshes, and a viewer that renders where it
is asked to look from.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from torch import Tensor

from ..cameras import Camera, check_cameras, orbit, project, rays
from ..checks import choice
from ..distill import SceneRun
from ..metrics import JANUS, Estimate
from ..scene.render import Rendering, composite, transmittance
from ..scene.scene import Scene
from . import style
from .controls import WIDE, choice_control, explore
from .interpolation import animated
from .live import Experiment
from .pictures import TILE, sheet, show_moving
from .points import HALO
from .style import COLOURS, INK, SOFT

COARSE = 48  # pixels a side, at most, of what a viewer shows while a slider moves
FILM = 300_000  # bytes of a GIF, at most, so that notebooks stay small
LOOKS = ("colour", "opacity", "depth", "normals")


def looks(rendering: Rendering) -> dict[str, Tensor]:
    """A rendering's pictures by name, each (V, 3, H, W) in [0, 1]: colour, opacity, depth, and
    normals if it has them.

    opacity: black is full. depth: from 2 (yellow) to 4 (blue), the unit sphere seen from distance
    3; white where there is nothing. normals: (x, y, z) + 1 halved as (red, green, blue): what faces
    right is red, up green, to the front blue.
    """
    rendering = Rendering(*(None if part is None else part.detach() for part in rendering))
    share, near = rendering.opacity.clamp(0, 1), ((4 - rendering.depth[:, 0]) / 2).clamp(0, 1)
    shade = colormaps["viridis"](near.cpu().numpy())[..., :3]
    depth = torch.from_numpy(shade).to(share).movedim(-1, 1)
    shown = {
        "colour": rendering.rgb.clamp(0, 1),
        "opacity": (1 - share).expand(-1, 3, -1, -1),
        "depth": 1 - share + share * depth,
    }
    if rendering.normals is not None:
        shown["normals"] = 1 - share + share * (rendering.normals + 1) / 2
    return shown


def views_grid(
    rows: Mapping[str, Tensor],
    cameras: Sequence[Camera] = (),
    title: str = "",
    credit: str = "",
    tile: float = TILE,
) -> Figure:
    """Scene by view: rows {label: images (V, 3, H, W) in [0, 1]}, a column a view, headed by its
    camera's angles.
    """
    heads = [f"{camera.azimuth:g}°\n{camera.elevation:g}° up" for camera in cameras]
    return sheet(rows, heads, title, credit, tile)


def look_from(
    scenes: Scene | Mapping[str, Scene] | Sequence[Scene],
    azimuth: float,
    elevation: float,
    size: int = 96,
    shows: str = "colour",
    coarse: bool = False,
) -> tuple[Figure, str]:
    """Scenes rendered now from one camera, side by side, and how much of its picture each covers.

    shows: one of LOOKS. coarse: render fewer pixels, at most `COARSE` a side where that divides
    size, or as many for several scenes together and a quarter where normals are to be found; and
    repeat them. Raises ValueError for another look, or for no scenes.
    """
    choice("look", shows, LOOKS)
    named, camera = _named(scenes), Camera(azimuth, elevation)
    most = COARSE / math.sqrt(len(named) * (4 if shows == "normals" else 1))
    factor = next(k for k in range(1, size + 1) if size % k == 0 and size // k <= max(most, 1))
    few = size // factor if coarse else size
    seen = [scene.render(camera, few, normals=shows == "normals") for scene in named.values()]
    cover = ", ".join(
        f"{label} {r.opacity.mean():.0%}".strip() for label, r in zip(named, seen, strict=True)
    )
    tiles = [looks(r)[shows][0] for r in seen]
    tiles = [
        tile.repeat_interleave(size // few, 1).repeat_interleave(size // few, 2) for tile in tiles
    ]
    figure = sheet({"": tiles}, [label for label in named if label], tile=2.4)
    place = f"azimuth {camera.azimuth:.0f}, elevation {camera.elevation:.0f}"
    return figure, f"{place}; covered of the picture: {cover}"


def orbit_viewer(
    scenes: Scene | Mapping[str, Scene] | Sequence[Scene],
    size: int = 96,
    azimuth: int = 30,
    elevation: int = 20,
    shows: str = "colour",
):
    """A live viewer of one or more scenes: moving a slider renders them anew, so it also follows a
    scene that changes. Of the values that a drag goes through, the newest is drawn: coarsely
    where that is much faster, and sharply once the slider rests.

    scenes: one, or several side by side, {label: scene}. size: pixels a side to begin with. Returns
    a `controls.Explorer` with controls azimuth, elevation, size and shows; `.refresh()` draws again
    after a scene has changed.
    """
    look, degrees = partial(look_from, _named(scenes)), "degrees around the scene: 0 is its front"
    return explore(
        look,
        cache=0,
        quick=partial(look, coarse=True),
        azimuth=widgets.IntSlider(
            azimuth, -180, 180, 5, description="azimuth", tooltip=degrees, **WIDE
        ),
        elevation=widgets.IntSlider(
            elevation, -90, 90, 5, description="elevation", tooltip="degrees up", **WIDE
        ),
        size=widgets.SelectionSlider(
            options=sorted({32, 64, 96, 128, 192, size}),
            value=size,
            description="size",
            tooltip="pixels a side",
            continuous_update=False,
            **WIDE,
        ),
        shows=choice_control("shows", LOOKS, shows),
    )


def turning(
    scenes: Scene | Mapping[str, Scene] | Sequence[Scene],
    alt: str,
    frames: int = 12,
    size: int = 48,
    elevation: float = 20.0,
):
    """Scenes that turn once around, side by side, as a notebook cell's picture: a looped GIF, for
    where no viewer runs.

    scenes: as for `orbit_viewer`. alt: what they look like, for those who do not see them. size:
    pixels a side. Raises ValueError if the film is larger than FILM bytes.
    """
    named, around = _named(scenes), orbit(frames, elevation)
    seen = [scene.images(around, size) for scene in named.values()]
    heads = [label for label in named if label]
    moments = [sheet({"": views}, heads, tile=1.6) for views in zip(*seen, strict=True)]
    film = animated(moments, seconds=0.16, rest=0.16)
    if len(film) > FILM:
        raise ValueError(
            f"the film has {len(film) // 1000} kB; fewer scenes, frames or pixels keep it below "
            f"{FILM // 1000}"
        )
    return show_moving(film, alt)


@style.theme()
def seen_from(scenes: Mapping[str, Tensor], title: str = "") -> Figure:
    """Where the views of a ring seem to be taken from: a circle a scene, seen from above, its
    front at the bottom.

    scenes: {label: azimuths in degrees (V,)}, as `metrics.seen_as` gives them for views from
    azimuth 360 i / V. Each view is a line from its camera, outside, to where it seems to stand,
    inside: blue, or orange where that is more than JANUS degrees away.
    """
    figure = Figure(figsize=(3.2 * len(scenes), 3.6))
    panels = figure.subplots(1, len(scenes), subplot_kw={"projection": "polar"}, squeeze=False)[0]
    for axes, (label, azimuths) in zip(panels, scenes.items(), strict=True):
        axes.set_theta_zero_location("S")
        axes.set_thetagrids(range(0, 360, 90), ("front", "right", "back", "left"))
        axes.set(rticks=[], ylim=(0, 1.15))
        axes.set_title(label, pad=14)
        cameras = torch.arange(len(azimuths)) * (360 / len(azimuths))
        off = (azimuths.cpu() - cameras + 180).remainder(360) - 180
        for camera, turn in zip(cameras.tolist(), off.tolist(), strict=True):
            colour = COLOURS[int(abs(turn) > JANUS)]
            way = np.deg2rad(np.linspace(camera, camera + turn, 30))
            axes.plot(way, np.linspace(1, 0.6, 30), color=colour, lw=1.2)
            axes.plot(way[0], 1, "o", ms=6, mfc="white", color=colour)
            axes.plot(way[-1], 0.6, "o", ms=6, color=colour)
    figure.tight_layout(rect=(0, 0, 1, 0.93 if title else 1))
    style.title(figure, title)
    return figure


def on_scene(
    begin: Callable[[], SceneRun],
    cameras: Sequence[Camera] = orbit(4),
    size: int = 64,
    credit: str = "",
) -> Experiment:
    """A run on a scene, which `begin()` makes, seen from some cameras in pictures of `size` pixels.

    A method may first follow a path for each view; that is part of the first step, and until then
    the empty scene is shown.
    """
    run = begin()

    def look():
        views = run.scene.images(cameras, size)
        figure = views_grid({"": views}, cameras, credit=credit, tile=1.1)
        return figure, f"step {run.index} of {run.steps}"

    def measure(step):
        return {"t / 999": step.t.double().mean() / 999, "not white": 1 - step.images.mean()}

    return Experiment(run, look, measure)


@style.theme()
def camera_rig(
    cameras: Mapping[str, Sequence[Camera]],
    points: Tensor | None = None,
    colours: Tensor | None = None,
    lines: Mapping[str, Tensor] | None = None,
    title: str = "",
) -> Figure:
    """Groups of cameras {name: cameras} around the unit sphere, as pyramids that open towards what
    they see.

    points (P, 3), with colours (P, 3) in [0, 1], are drawn as dots, lines {name: (n, 3)} with a dot
    at each of their points. y is up, and the front, +z, faces the reader.
    """
    figure = Figure(figsize=(6.8, 5.4))
    axes = figure.add_axes(  # its corners are empty
        (-0.1, -0.12, 1.2, 1.2), projection="3d", computed_zorder=False
    )
    _stage(axes)
    if points is not None:
        axes.scatter(
            *_upright(points).T.numpy(),
            c=None if colours is None else colours.cpu().clamp(0, 1).numpy(),
            s=4,
            linewidths=0,
            depthshade=False,
            zorder=2,
        )
    for k, (name, group) in enumerate(cameras.items()):
        for i, camera in enumerate(check_cameras(group)):
            how = {"color": COLOURS[k % len(COLOURS)], "label": name if i == 0 else None}
            _draw(axes, _pyramid(camera), lw=1.1, zorder=3, **how)
    for k, (name, path) in enumerate((lines or {}).items()):
        how = {"marker": "o", "ms": 3.5, "ls": ("-", "--", ":")[k % 3], "label": name}
        _draw(axes, path, color=INK, lw=1.3, zorder=4, **how)
    reach = 0.62 * max(camera.distance for group in cameras.values() for camera in group)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-0.62 * reach, reach))
    axes.set_box_aspect((2, 2, 1.62), zoom=0.98)
    axes.view_init(elev=24, azim=-62)
    axes.set_axis_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=4)
    style.title(figure, title, 0.2)
    return figure


def _stage(axes) -> None:
    """The unit sphere's three great circles, and the axes with their names."""
    turn = torch.linspace(0, 2 * torch.pi, 73, dtype=torch.float64)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        circle = torch.zeros(73, 3, dtype=torch.float64)
        circle[:, a], circle[:, b] = turn.cos(), turn.sin()
        label = "unit sphere" if (a, b) == (0, 1) else None
        _draw(axes, circle, color="#c3c9d4", lw=0.8, label=label, zorder=0)
    for axis, name in enumerate(("x, right", "y, up", "z, front")):
        end = torch.zeros(2, 3, dtype=torch.float64)
        end[1, axis] = 1.45
        _draw(axes, end, color=SOFT, lw=1.2, zorder=1)
        place = _upright(1.2 * end[1]).tolist()  # clear of the line's end
        axes.text(*place, name, fontsize=8, color=SOFT, ha="center", path_effects=HALO, zorder=6)


def _pyramid(camera: Camera) -> Tensor:
    """The outline (17, 3) of a pyramid that opens from a camera towards what it sees."""
    tip, directions = camera.position, rays([camera], 2, torch.float64)[1][0].flatten(0, 1)
    corners = tip + 0.28 * directions[[0, 1, 3, 2]]
    edges = (torch.stack([tip, corner, tip]) for corner in corners)
    return torch.cat([corners, corners[:1], *edges])


def _draw(axes, path: Tensor, **how) -> None:
    """A line through points (n, 3), y up."""
    axes.plot(*_upright(path).T.numpy(), **how)


@style.theme()
def ray_figure(
    z: Tensor, density: Tensor, delta: float, colour: Tensor | None = None, title: str = ""
) -> Figure:
    """Density, transmittance and weights along one ray, at distances z (S,) of samples that each
    stand for a length `delta`.

    colour: (S, 3) in [0, 1], of the samples; then the bars of the weights have it. Raises
    ValueError for unequal lengths.
    """
    shapes = [tuple(x.shape) for x in (z, density, colour) if x is not None]
    if z.ndim != 1 or shapes not in ([shapes[0]] * 2, [shapes[0]] * 2 + [(len(z), 3)]):
        raise ValueError(
            f"z and density must be (S,) and colour (S, 3), got {', '.join(map(str, shapes))}"
        )
    z, density = z.detach().cpu(), density.detach().cpu()
    length = torch.full((1, 1), float(delta), dtype=density.dtype)
    through, weights = (f(density[None], length)[0].numpy() for f in (transmittance, composite))
    figure = Figure(figsize=(6.8, 4.6))
    panels = figure.subplots(3, 1, sharex=True)
    panels[0].fill_between(z, density, step="mid", color="#c9cfdd", lw=0)
    panels[0].step(z, density, where="mid", color=COLOURS[0], lw=1.3)
    panels[1].step(z, through, where="mid", color=COLOURS[1], lw=1.5)
    panels[1].set_ylim(-0.05, 1.08)
    fill = COLOURS[2] if colour is None else colour.detach().cpu().clamp(0, 1).numpy()
    panels[2].bar(z, weights, width=0.9 * delta, color=fill, edgecolor=SOFT, lw=0.4)
    panels[2].set_xlabel("distance from the camera")
    names = ("density\n$\\tau_i$", "light left\n$T_i$", "weight\n$w_i$")
    for axes, name in zip(panels, names, strict=True):
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    panels[0].set_title(title, fontsize=11, weight="bold", loc="left")
    figure.align_ylabels()
    figure.tight_layout()
    return figure


def mesh_figure(mesh, title: str = ""):
    """A trimesh.Trimesh with vertex colours as a plotly figure to turn; y is up, and it is seen
    from the front.
    """
    import plotly.graph_objects as go

    from .stills import StillFigure

    x, y, z = np.asarray(mesh.vertices, dtype=np.float32).T
    i, j, k = np.asarray(mesh.faces, dtype=np.int32).T
    axis = {"visible": False, "range": [-1, 1]}
    surface = go.Mesh3d(
        x=x,
        y=y,
        z=z,
        i=i,
        j=j,
        k=k,
        vertexcolor=["#" + bytes(c).hex() for c in np.uint8(mesh.visual.vertex_colors)[:, :3]],
        hoverinfo="skip",
        flatshading=False,
        lighting={"ambient": 0.85, "diffuse": 0.25, "specular": 0.02, "roughness": 0.9},
    )
    layout = go.Layout(
        width=480,
        height=480,
        title=title,
        margin={"l": 0, "r": 0, "t": 40 if title else 0, "b": 0},
        scene={"xaxis": axis, "yaxis": axis, "zaxis": axis, "aspectmode": "cube"},
        scene_camera={"up": {"x": 0, "y": 1, "z": 0}, "eye": {"x": 0.7, "y": 0.5, "z": 1.2}},
    )
    eye = Camera(azimuth=30, elevation=20, distance=3.6)  # about where plotly looks from
    return StillFigure(
        surface,
        layout,
        still=lambda: sheet({"": [mesh_picture(mesh, eye, 256)]}, title=title, tile=3.0),
    )


def mesh_picture(mesh, camera: Camera, size: int = 128) -> Tensor:
    """A mesh with vertex colours as one camera sees it, on white: (3, size, size) in [0, 1].

    Triangles that face the camera are painted from the farthest to the nearest, each in the mean
    colour of its corners.
    """
    faces = np.asarray(mesh.faces)
    corner = torch.from_numpy(np.float64(mesh.vertices)[faces])  # (F, 3, 3)
    away = corner.mean(1) - camera.position
    normal = (corner[:, 1] - corner[:, 0]).cross(corner[:, 2] - corner[:, 0], dim=1)
    front = ((normal * away).sum(1) < 0).nonzero().squeeze(1)
    order = front[away[front].norm(dim=1).argsort(descending=True)].numpy()
    colour = np.asarray(mesh.visual.vertex_colors)[:, :3][faces[order]].mean(1) / 255
    figure = Figure(figsize=(1, 1), dpi=2 * size, facecolor="white")  # twice as fine, then averaged
    canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size), ylim=(size, 0))
    axes.set_axis_off()
    triangles = project(corner[order], camera, size).numpy()
    how = {"facecolors": colour, "edgecolors": colour, "linewidths": 0.1, "antialiaseds": False}
    axes.add_collection(PolyCollection(triangles, **how))
    canvas.draw()
    drawn = torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1).float() / 255
    return torch.nn.functional.avg_pool2d(drawn, 2)


@style.theme()
def objects_figure(rows: Sequence[Mapping], title: str = "", credit: str = "") -> Figure:
    """Methods by what their objects are: a line a method, a colour a prompt, dots with 95 %
    intervals over seeds.

    rows: {"prompt", "method", "scenes", "distinct", "reached", "pairwise", "distance"} as
    `dsd_lab.course.objects.load` gives them, an estimate as [value, low, high] or None. Methods
    stand in the order in which they first appear; one with fewer scenes than the others says so.
    Raises ValueError if there is nothing to show.
    """
    if not rows:
        raise ValueError("nothing to show: give at least one row")
    seeds = {row["method"]: row["scenes"] for row in rows}
    methods, most = list(seeds), max(seeds.values())
    prompts = dict.fromkeys(row["prompt"] for row in rows)
    figure = Figure(figsize=(9.6, 1.35 + 0.33 * len(methods)))
    heads = (
        f"different objects from {most} seeds\n(hollow: however far from one)",
        "distance to the nearest true object\n(left is better)",
        "distance between the seeds' objects",
    )
    panels = style.dot_panels(figure, heads)
    spread = 0.3 / max(1, len(prompts) - 1)
    for k, prompt in enumerate(prompts):
        colour = COLOURS[k % len(COLOURS)]
        for row in (row for row in rows if row["prompt"] == prompt):
            y = methods.index(row["method"]) + (k - (len(prompts) - 1) / 2) * spread
            if row["distinct"] > row["reached"]:
                panels[0].plot(row["distinct"], y, "o", mfc="white", color=colour, ms=6)
            panels[0].plot(row["reached"], y, "o", color=colour, ms=6)
            for panel, name in zip(panels[1:], ("distance", "pairwise"), strict=True):
                if row[name] is not None:
                    style.dot(panel, Estimate(*row[name]), y, colour)
        panels[0].plot([], [], "o", color=colour, label=prompt)
    names = [name if seeds[name] == most else f"{name} ({seeds[name]} seeds)" for name in methods]
    panels[0].set_yticks(range(len(methods)), names)
    panels[0].set(xlim=(-0.3, most + 0.3), ylim=(len(methods) - 0.4, -0.6))
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    for panel in panels[1:]:
        panel.set_xlim(left=0)
        panel.locator_params(axis="x", nbins=5)
    high = figure.get_figheight()
    figure.tight_layout(rect=(0, 0.36 / high, 1, 1 - (0.28 if title else 0) / high))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower right", ncols=len(prompts))
    style.title(figure, title)
    style.credit(figure, credit)
    return figure


def _named(scenes):
    """Scenes by label: one scene has none, those of a sequence are numbered from 1."""
    if isinstance(scenes, Scene):
        return {"": scenes}
    if not isinstance(scenes, Mapping):
        scenes = {str(i): scene for i, scene in enumerate(scenes, 1)}
    if not scenes:
        raise ValueError("no scene to show; give one, or several as {label: scene}")
    return dict(scenes)


def _upright(points):
    """Points (..., 3) with y up in matplotlib's axes, whose third is up."""
    x, y, z = points.cpu().double().unbind(-1)
    return torch.stack([x, -z, y], dim=-1)
