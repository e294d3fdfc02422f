"""A scene: a field, what is empty in it and what is behind it, to look at, to keep and to take
away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..cameras import Camera, check_cameras, orbit, rays
from ..files import expanded, write_whole
from .background import NeuralBackground
from .field import Field, GridField, HashField, Occupancy
from .mesh import SUFFIXES, THRESHOLD, check_suffix, export, surface
from .page import frame
from .render import SAMPLES, Rendering, render

FRAMES_A_SECOND = 12
FILMS = {
    ".gif": {"duration": 1000 / FRAMES_A_SECOND, "loop": 0},
    ".mp4": {"fps": FRAMES_A_SECOND, "macro_block_size": 2},
}


class Scene(nn.Module):
    """A field in the unit sphere around the origin, the cells that it leaves empty, and a
    background.

    field: a new soft blob on a grid unless given. background: a number, or (3,) in [0, 1], or a
    `NeuralBackground`, which is then `backdrop` and optimised with the field. When optimising,
    render with `grad=True` and call `step()` after each step of the optimiser, so that empty space
    goes on being skipped rightly.
    """

    def __init__(
        self,
        field: Field | None = None,
        occupancy: Occupancy | None = None,
        background: float | Tensor | NeuralBackground = 1.0,
    ):
        super().__init__()
        self.backdrop = background if isinstance(background, NeuralBackground) else None
        self.field = GridField() if field is None else field
        self.occupancy = Occupancy() if occupancy is None else occupancy
        self.register_buffer("background", _constant(1.0 if self.backdrop else background))

    def render(
        self,
        cameras: Camera | Sequence[Camera],
        size: int = 64,
        samples: int = SAMPLES,
        *,
        grad: bool = False,
        **how,
    ) -> Rendering:
        """`render` of this scene, its occupancy and background; with gradients only if `grad`.
        how: generator, normals, lights and chunk, as there.
        """
        cameras = [cameras] if isinstance(cameras, Camera) else check_cameras(cameras)
        with torch.set_grad_enabled(grad):
            how |= {"occupancy": self.occupancy, "background": _behind(self, cameras, size)}
            return render(self.field, cameras, size, samples, **how)

    def images(self, cameras: Sequence[Camera], size: int = 64, samples: int = SAMPLES) -> Tensor:
        """Repeatable pictures (V, 3, H, W) in [0, 1], one view after another to spare memory."""
        return torch.cat([self.render(camera, size, samples).rgb for camera in cameras]).clamp(0, 1)

    def step(self) -> None:
        """Count an optimisation step: every so often the occupancy looks at the field again."""
        self.occupancy.step(self.field)

    def upsample(self, resolution: int) -> None:
        """Give a grid field another resolution; its parameter is new, so make a new optimiser.
        TypeError for a hash field.
        """
        if not isinstance(self.field, GridField):
            kind = type(self.field).__name__
            raise TypeError(f"only a GridField has a resolution to change, this scene has a {kind}")
        self.field = self.field.upsampled(resolution)
        self.occupancy.update(self.field)

    def mesh(self, threshold: float = THRESHOLD, resolution: int = 96):
        """The surface at one density as a trimesh.Trimesh with vertex colours, see `surface`."""
        return surface(self.field, threshold, resolution)

    def export_mesh(
        self,
        path: str | Path,
        threshold: float = THRESHOLD,
        resolution: int = 96,
        unlit: bool = False,
    ) -> Path:
        """Write that surface as .glb, .ply, .obj or, as a page that shows it, .html; returns the
        path. unlit: see `dsd_lab.scene.gltf.glb`. Raises ValueError for other suffixes.
        """
        check_suffix(path, SUFFIXES)
        return export(self.mesh(threshold, resolution), path, unlit)

    def viewer(self, threshold: float = THRESHOLD, resolution: int = 64, height: int = 400):
        """That surface to be turned in a notebook, or in a page made of it, without a kernel or a
        network: an IPython.display.HTML, `height` pixels high.
        """
        return frame(self.mesh(threshold, resolution), height)

    def turntable(
        self, path: str | Path, frames: int = 24, size: int = 128, elevation: float = 20.0
    ) -> Path:
        """Write a film of one turn as .gif or .mp4, else ValueError, and return the path."""
        path = check_suffix(path, tuple(FILMS))
        if path.suffix.lower() == ".mp4" and size % 2:
            raise ValueError(f"size must be even for .mp4, got {size}")
        return write_film(path, self.images(orbit(frames, elevation), size, 2 * SAMPLES))

    def load_state_dict(
        self, state: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ):
        """Take over a state of the same kind of field; a grid's resolution comes with it, on a new
        parameter.

        Raises ValueError for a state of another kind or shape.
        """
        try:
            if set(state) != set(names := self.state_dict()):  # before anything is taken over
                raise RuntimeError(f"it has {', '.join(state)}; this scene has {', '.join(names)}")
            return super().load_state_dict(state, strict, assign)
        except RuntimeError as error:
            raise ValueError(f"the state does not fit this scene: {error}") from None

    def save(self, path: str | Path) -> Path:
        """Write the scene as .safetensors, whole or not at all, and return the path. Raises
        ValueError for other suffixes.
        """
        state = {name: part.detach().cpu().contiguous() for name, part in self.state_dict().items()}
        path = check_suffix(path, (".safetensors",))
        return write_whole(path, lambda place: save_file(state, place))

    @classmethod
    def load(cls, path: str | Path) -> Scene:
        """The scene that `save` wrote, on the CPU. Raises ValueError for a file of another kind."""
        state = _read(path)
        scene = cls(_field_of(state), background=_background_of(state))
        scene.load_state_dict(state)
        return scene


def _constant(background: float | Tensor) -> Tensor:
    """A background of one colour: (3,). Raises ValueError for another shape."""
    background = torch.as_tensor(background).float()
    if background.shape not in ((), (1,), (3,)):
        raise ValueError(f"background must be a number or (3,), got {tuple(background.shape)}")
    return background.expand(3).clone()


def _behind(scene: Scene, cameras: Sequence[Camera], size: int) -> Tensor:
    """What is behind a scene: (3,), or the backdrop's, a colour a pixel, (V * H * W, 3)."""
    if scene.backdrop is None:
        return scene.background
    directions = rays(cameras, size)[1].reshape(-1, 3)
    return scene.backdrop(directions.to(scene.field.device, scene.field.dtype))


def _read(path: str | Path) -> dict[str, Tensor]:
    """The state in a file. Raises ValueError if it is no scene's."""
    path = expanded(path)
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f'"{path}" holds no scene: {error}; give a file that scene.save wrote whole'
        ) from None
    if not {"field.grid", "field.tables"} & set(state):
        raise ValueError(f'"{path}" holds no scene: it has {", ".join(sorted(state))}')
    return state


def _field_of(state: Mapping[str, Tensor]) -> Field:
    """A new field of the kind, shape and dtype of the one in a saved state."""
    if "field.grid" in state:
        grid = state["field.grid"]
        return GridField(grid.shape[-1]).to(grid.dtype)
    tables, hidden = state["field.tables"], len(state["field.last"])
    levels, entries, features = tables.shape
    return HashField(levels, features, entries, hidden=hidden).to(tables.dtype)


def _background_of(state: Mapping[str, Tensor]) -> float | NeuralBackground:
    """A new background of the kind and shape of the one in a saved state."""
    if "backdrop.first" not in state:
        return 1.0
    frequencies, hidden = len(state["backdrop.scales"]), state["backdrop.first"].shape[1]
    return NeuralBackground(frequencies, hidden)


def write_film(path: Path, pictures: Tensor) -> Path:
    """Write pictures (n, 3, H, W) in [0, 1] as a film, whole or not at all, and return the path."""
    import imageio.v2 as imageio

    film = list(pictures.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    how = FILMS[path.suffix.lower()]
    return write_whole(path, lambda place: imageio.mimwrite(place, film, **how))
