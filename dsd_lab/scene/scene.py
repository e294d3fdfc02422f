"""A scene: a field, what is empty in it and what is behind it, to look at, to keep and to take
away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cameras import Camera, orbit
from ..files import write_whole
from .field import Field, GridField, HashField, Occupancy
from .mesh import SUFFIXES, THRESHOLD, check_suffix, export, surface
from .page import frame
from .render import SAMPLES, Rendering, render

FRAMES_A_SECOND = 12


class Scene(nn.Module):
    """A field in the unit sphere around the origin, the cells that it leaves empty, and a
    background.

    field: a new soft blob on a grid unless given. background: a number, or (3,) in [0, 1]. When
    optimising, render with `grad=True` and call `step()` after each step of the optimiser, so that
    empty space goes on being skipped rightly.
    """

    def __init__(
        self,
        field: Field | None = None,
        occupancy: Occupancy | None = None,
        background: float | Tensor = 1.0,
    ):
        super().__init__()
        self.field = GridField() if field is None else field
        self.occupancy = Occupancy() if occupancy is None else occupancy
        background = torch.as_tensor(background).float()
        if background.shape not in ((), (1,), (3,)):
            raise ValueError(f"background must be a number or (3,), got {tuple(background.shape)}")
        self.register_buffer("background", background.expand(3).clone())

    def render(
        self,
        cameras: Camera | Sequence[Camera],
        size: int = 64,
        samples: int = SAMPLES,
        *,
        grad: bool = False,
        generator: torch.Generator | None = None,
        normals: bool = False,
    ) -> Rendering:
        """`render` of this scene's field, occupancy and background; with gradients only if `grad`."""
        cameras = [cameras] if isinstance(cameras, Camera) else cameras
        with torch.set_grad_enabled(grad):
            return render(
                self.field,
                cameras,
                size,
                samples,
                generator,
                self.occupancy,
                self.background,
                normals,
            )

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
            raise TypeError(
                f"only a GridField has a resolution to change, this scene has a {type(self.field).__name__}"
            )
        self.field = self.field.upsampled(resolution)
        self.occupancy.update(self.field)

    def mesh(self, threshold: float = THRESHOLD, resolution: int = 96):
        """The surface at one density as a trimesh.Trimesh with vertex colours; see
        `dsd_lab.scene.mesh.surface`.
        """
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
        """Write a film of one turn as .gif or .mp4 and return the path. Raises ValueError for other
        suffixes.
        """
        import imageio.v2 as imageio

        path = check_suffix(path, (".gif", ".mp4"))
        if path.suffix.lower() == ".mp4" and size % 2:
            raise ValueError(f"size must be even for .mp4, got {size}")
        pictures = self.images(orbit(frames, elevation), size, 2 * SAMPLES)
        film = list(pictures.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        options = (
            {"duration": 1000 / FRAMES_A_SECOND, "loop": 0}
            if path.suffix.lower() == ".gif"
            else {"fps": FRAMES_A_SECOND, "macro_block_size": 2}
        )
        return write_whole(path, lambda place: imageio.mimwrite(place, film, **options))

    def load_state_dict(
        self, state: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ):
        """Take over a state of the same kind of field; a grid's resolution comes with it, on a new
        parameter.

        Raises ValueError for a state of another kind or shape.
        """
        if set(state) != set(self.state_dict()):
            raise ValueError(
                f"the state has {', '.join(sorted(state))}; this scene has {', '.join(self.state_dict())}"
            )
        try:
            return super().load_state_dict(state, strict, assign)
        except RuntimeError as error:
            raise ValueError(f"the state does not fit this scene: {error}") from None

    def save(self, path: str | Path) -> Path:
        """Write the scene as .safetensors, whole or not at all, and return the path. Raises
        ValueError for other suffixes.
        """
        from safetensors.torch import save_file

        state = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()
        }
        return write_whole(
            check_suffix(path, (".safetensors",)), lambda place: save_file(state, place)
        )

    @classmethod
    def load(cls, path: str | Path) -> Scene:
        """The scene that `save` wrote, on the CPU. Raises ValueError for a file with something else
        in it.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f'"{path}" holds no scene: {error}') from None
        if "field.grid" in state:
            field = GridField(state["field.grid"].shape[-1]).to(state["field.grid"].dtype)
        elif "field.tables" in state:
            levels, entries, features = state["field.tables"].shape
            field = HashField(levels, features, entries, hidden=len(state["field.last"])).to(
                state["field.tables"].dtype
            )
        else:
            raise ValueError(f'"{path}" holds no scene: it has {", ".join(sorted(state))}')
        scene = cls(field)
        scene.load_state_dict(state)
        return scene
