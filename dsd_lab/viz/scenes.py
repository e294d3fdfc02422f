"""Figures of things in space: cameras, rays, views and meshes, and a viewer that renders where it
is asked to look from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from torch import Tensor

from ..cameras import Camera, check_cameras, project, rays
from ..scene.render import Rendering, composite, transmittance
from ..scene.scene import Scene
from .pictures import TILE, sheet
from .points import COLOURS

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
    depth = (
        torch.from_numpy(colormaps["viridis"](near.cpu().numpy())[..., :3]).to(share).movedim(-1, 1)
    )
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
    return sheet(
        rows,
        [f"{camera.azimuth:g}°\n{camera.elevation:g}° up" for camera in cameras],
        title,
        credit,
        tile,
    )


def look_from(
    scenes: Scene | Mapping[str, Scene] | Sequence[Scene],
    azimuth: float,
    elevation: float,
    size: int = 96,
    shows: str = "colour",
) -> tuple[Figure, str]:
    """Scenes rendered now from one camera, side by side, and how much of its picture each covers.

    shows: one of LOOKS. Raises ValueError for another, or for no scenes.
    """
    if shows not in LOOKS:
        raise ValueError(f'shows must be one of {", ".join(LOOKS)}, got "{shows}"')
    named, camera = _named(scenes), Camera(azimuth, elevation)
    seen = [scene.render(camera, size, normals=shows == "normals") for scene in named.values()]
    cover = ", ".join(
        f"{label} {r.opacity.mean():.0%}".strip() for label, r in zip(named, seen, strict=True)
    )
    figure = sheet(
        {"": [looks(r)[shows][0] for r in seen]}, [label for label in named if label], tile=2.4
    )
    return (
        figure,
        f"azimuth {camera.azimuth:.0f}, elevation {camera.elevation:.0f}; of the picture is covered: {cover}",
    )


def orbit_viewer(
    scenes: Scene | Mapping[str, Scene] | Sequence[Scene],
    size: int = 96,
    azimuth: int = 30,
    elevation: int = 20,
    shows: str = "colour",
):
    """A live viewer of one or more scenes: each move of a slider renders them anew, so it also
    follows a scene that changes.

    scenes: one, or several side by side, {label: scene}. size: pixels a side to begin with. Returns
    a `controls.Explorer` with controls azimuth, elevation, size and shows; `.refresh()` draws again
    after a scene has changed.
    """
    import ipywidgets as widgets

    from .controls import WIDE, choice_control, explore

    named = _named(scenes)
    return explore(
        lambda azimuth, elevation, size, shows: look_from(named, azimuth, elevation, size, shows),
        cache=0,
        azimuth=widgets.IntSlider(azimuth, -180, 180, 5, description="azimuth", **WIDE),
        elevation=widgets.IntSlider(elevation, -90, 90, 5, description="elevation", **WIDE),
        size=widgets.SelectionSlider(
            options=sorted({32, 64, 96, 128, 192, size}),
            value=size,
            description="size",
            continuous_update=False,
            **WIDE,
        ),
        shows=choice_control("shows", LOOKS, shows),
    )


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
    figure = Figure(figsize=(6.8, 5.4), dpi=110)
    axes = figure.add_axes(
        (-0.1, -0.12, 1.2, 1.2), projection="3d", computed_zorder=False
    )  # its corners are empty

    def draw(path, **style):
        axes.plot(*_upright(path).T.numpy(), **style)

    turn = torch.linspace(0, 2 * torch.pi, 73, dtype=torch.float64)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        circle = torch.zeros(73, 3, dtype=torch.float64)
        circle[:, a], circle[:, b] = turn.cos(), turn.sin()
        draw(
            circle,
            color="#c3c9d4",
            lw=0.8,
            label="unit sphere" if (a, b) == (0, 1) else None,
            zorder=0,
        )
    for axis, name in enumerate(("x, right", "y, up", "z, front")):
        end = torch.zeros(2, 3, dtype=torch.float64)
        end[1, axis] = 1.45
        draw(end, color="#5f6b7a", lw=1.2, zorder=1)
        axes.text(
            *_upright(1.08 * end[1]).tolist(),
            name,
            fontsize=8,
            color="#5f6b7a",
            ha="center",
            zorder=6,
        )
    if points is not None:
        axes.scatter(
            *_upright(points).T.numpy(),
            c=None if colours is None else colours.clamp(0, 1).numpy(),
            s=4,
            linewidths=0,
            depthshade=False,
            zorder=2,
        )
    for k, (name, group) in enumerate(cameras.items()):
        for i, camera in enumerate(check_cameras(group)):
            tip = camera.position
            corners = (
                tip + 0.28 * rays([camera], 2, torch.float64)[1][0].flatten(0, 1)[[0, 1, 3, 2]]
            )
            outline = torch.cat(
                [corners, corners[:1], *(torch.stack([tip, corner, tip]) for corner in corners)]
            )
            draw(
                outline,
                color=COLOURS[k % len(COLOURS)],
                lw=1.1,
                label=name if i == 0 else None,
                zorder=3,
            )
    for k, (name, path) in enumerate((lines or {}).items()):
        draw(
            path,
            color="#1d2129",
            lw=1.3,
            marker="o",
            ms=3.5,
            ls=("-", "--", ":")[k % 3],
            label=name,
            zorder=4,
        )
    reach = 0.62 * max(camera.distance for group in cameras.values() for camera in group)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-0.62 * reach, reach))
    axes.set_box_aspect((2, 2, 1.62), zoom=0.98)
    axes.view_init(elev=24, azim=-62)
    axes.set_axis_off()
    figure.legend(
        *axes.get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=8.5, frameon=False
    )
    figure.text(0.03, 0.985, title, fontsize=11, weight="bold", va="top")
    return figure


def ray_figure(
    z: Tensor, density: Tensor, delta: float, colour: Tensor | None = None, title: str = ""
) -> Figure:
    """Density, transmittance and weights along one ray, at distances z (S,) of samples that each
    stand for a length `delta`.

    colour: (S, 3) in [0, 1], of the samples; then the bars of the weights have it. Raises
    ValueError for unequal lengths.
    """
    if (
        z.shape != density.shape
        or z.ndim != 1
        or (colour is not None and colour.shape != (len(z), 3))
    ):
        raise ValueError(
            f"z and density must be (S,) and colour (S, 3), got {tuple(z.shape)}, {tuple(density.shape)}"
            + ("" if colour is None else f", {tuple(colour.shape)}")
        )
    density, length = density.detach(), torch.full((1, 1), float(delta), dtype=density.dtype)
    z, through, weights = (
        x.numpy()
        for x in (z, transmittance(density[None], length)[0], composite(density[None], length)[0])
    )
    figure = Figure(figsize=(6.8, 4.6), dpi=110)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    top.fill_between(z, density, step="mid", color="#c9cfdd", lw=0)
    top.step(z, density, where="mid", color=COLOURS[0], lw=1.3)
    middle.step(z, through, where="mid", color=COLOURS[1], lw=1.5)
    middle.set_ylim(-0.05, 1.08)
    bottom.bar(
        z,
        weights,
        width=0.9 * delta,
        color=COLOURS[2] if colour is None else colour.detach().clamp(0, 1).numpy(),
        edgecolor="#5f6b7a",
        lw=0.4,
    )
    bottom.set_xlabel("distance from the camera", fontsize=9)
    for axes, name in (
        (top, "density\n$\\tau_i$"),
        (middle, "light left\n$T_i$"),
        (bottom, "weight\n$w_i$"),
    ):
        axes.set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
        axes.tick_params(labelsize=8)
        axes.grid(color="#e9ebef", lw=0.7)
        axes.set_axisbelow(True)
        for spine in ("top", "right"):
            axes.spines[spine].set_visible(False)
    top.set_title(title, fontsize=11, weight="bold", loc="left")
    figure.align_ylabels()
    figure.tight_layout()
    return figure


def mesh_figure(mesh, title: str = ""):
    """A trimesh.Trimesh with vertex colours as a plotly figure to turn; y is up, and it is seen
    from the front.
    """
    import numpy as np
    import plotly.graph_objects as go

    x, y, z = np.asarray(mesh.vertices, dtype=np.float32).T
    i, j, k = np.asarray(mesh.faces, dtype=np.int32).T
    colour = [
        "#" + bytes(row).hex()
        for row in np.asarray(mesh.visual.vertex_colors, dtype=np.uint8)[:, :3]
    ]
    figure = go.Figure(
        go.Mesh3d(
            x=x,
            y=y,
            z=z,
            i=i,
            j=j,
            k=k,
            vertexcolor=colour,
            hoverinfo="skip",
            flatshading=False,
            lighting=dict(ambient=0.85, diffuse=0.25, specular=0.02, roughness=0.9),
        )
    )
    axis = dict(visible=False, range=[-1, 1])
    figure.update_layout(
        width=480,
        height=480,
        title=title,
        margin=dict(l=0, r=0, t=40 if title else 0, b=0),
        scene=dict(
            xaxis=axis,
            yaxis=axis,
            zaxis=axis,
            aspectmode="cube",
            camera=dict(up=dict(x=0, y=1, z=0), eye=dict(x=0.7, y=0.5, z=1.2)),
        ),
    )
    return figure


def mesh_picture(mesh, camera: Camera, size: int = 128) -> Tensor:
    """A mesh with vertex colours as one camera sees it, on white: (3, size, size) in [0, 1].

    Triangles that face the camera are painted from the farthest to the nearest, each in the mean
    colour of its corners.
    """
    import numpy as np

    corner = torch.as_tensor(np.asarray(mesh.vertices), dtype=torch.float64)[
        torch.as_tensor(np.asarray(mesh.faces))
    ]  # (F, 3, 3)
    look = corner.mean(1) - camera.position
    front = ((corner[:, 1] - corner[:, 0]).cross(corner[:, 2] - corner[:, 0], dim=1) * look).sum(
        1
    ) < 0
    order = front.nonzero().squeeze(1)
    order = order[look[order].norm(dim=1).argsort(descending=True)].numpy()
    colour = (
        np.asarray(mesh.visual.vertex_colors)[:, :3][np.asarray(mesh.faces)[order]].mean(1) / 255
    )
    figure = Figure(figsize=(1, 1), dpi=2 * size, facecolor="white")  # twice as fine, then averaged
    canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size), ylim=(size, 0))
    axes.set_axis_off()
    axes.add_collection(
        PolyCollection(
            project(corner[order], camera, size).numpy(),
            facecolors=colour,
            edgecolors=colour,
            linewidths=0.1,
            antialiaseds=False,
        )
    )
    canvas.draw()
    drawn = torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1).float() / 255
    return torch.nn.functional.avg_pool2d(drawn, 2)


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
    methods, prompts = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("method", "prompt")
    )
    figure = Figure(figsize=(9.6, 1.35 + 0.33 * len(methods)), dpi=100)
    panels = figure.subplots(1, 3, sharey=True)
    spread = 0.3 / max(1, len(prompts) - 1)
    for k, prompt in enumerate(prompts):
        style = {"color": COLOURS[k % len(COLOURS)], "ms": 6, "lw": 1.2, "capsize": 2}
        for row in (row for row in rows if row["prompt"] == prompt):
            y = methods.index(row["method"]) + (k - (len(prompts) - 1) / 2) * spread
            if row["distinct"] > row["reached"]:
                panels[0].plot(row["distinct"], y, "o", mfc="white", color=style["color"], ms=6)
            panels[0].plot(row["reached"], y, "o", color=style["color"], ms=6)
            for panel, name in zip(panels[1:], ("distance", "pairwise"), strict=True):
                if row[name] is not None:
                    value, low, high = row[name]
                    panel.errorbar(
                        value,
                        y,
                        xerr=[[max(value - low, 0)], [max(high - value, 0)]],
                        fmt="o",
                        **style,
                    )
        panels[0].plot([], [], "o", color=style["color"], label=prompt)
    scenes = max(row["scenes"] for row in rows)
    of = {row["method"]: row["scenes"] for row in rows}
    names = [name if of[name] == scenes else f"{name} ({of[name]} seeds)" for name in methods]
    panels[0].set_yticks(range(len(methods)), names, fontsize=9)
    panels[0].set_ylim(len(methods) - 0.4, -0.6)
    panels[0].set_xlim(-0.3, scenes + 0.3)
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    heads = (
        f"different objects from {scenes} seeds\n(hollow: however far from one)",
        "distance to the nearest true object\n(left is better)",
        "distance between the seeds' objects",
    )
    for panel, head in zip(panels, heads, strict=True):
        panel.set_title(head, fontsize=9)
        panel.grid(color="0.92")
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8.5, length=0)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
    for panel in panels[1:]:
        panel.set_xlim(left=0)
        panel.locator_params(axis="x", nbins=5)
    high = figure.get_figheight()
    figure.tight_layout(rect=(0, 0.36 / high, 1, 1 - (0.28 if title else 0) / high))
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="lower right",
        ncols=len(prompts),
        fontsize=8.5,
        frameon=False,
    )
    figure.text(0.01, 1 - 0.08 / high, title, fontsize=11, weight="bold", va="top")
    figure.text(0.01, 0.06 / high, credit, fontsize=6.5, color="0.4")
    return figure


def _named(scenes):
    """Scenes by label: one scene has none, those of a sequence are numbered from 1."""
    if isinstance(scenes, Scene):
        return {"": scenes}
    named = (
        dict(scenes)
        if isinstance(scenes, Mapping)
        else {str(i): scene for i, scene in enumerate(scenes, 1)}
    )
    if not named:
        raise ValueError("no scene to show; give one, or several as {label: scene}")
    return named


def _upright(points):
    """Points (..., 3) with y up in matplotlib's axes, whose third is up."""
    return torch.stack([points[..., 0], -points[..., 2], points[..., 1]], dim=-1).double()
