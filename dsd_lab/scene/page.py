"""A mesh as a page that shows it to be turned, in any browser and without a network."""

import base64
from html import escape
from pathlib import Path

from .gltf import glb

TEMPLATE = Path(__file__).with_name("viewer.html")


def page(mesh, title: str = "dsd_lab") -> str:
    """A whole HTML page with the mesh (a trimesh.Trimesh with vertex colours) and what draws it."""
    text = TEMPLATE.read_text(encoding="utf-8")
    return text.replace("$TITLE", escape(title)).replace(
        "$GLB", base64.b64encode(glb(mesh)).decode()
    )


def frame(mesh, height: int = 400):
    """The page as an IPython.display.HTML, for notebooks and the static pages made from them."""
    from IPython.display import HTML

    frame = f'<iframe srcdoc="{escape(page(mesh))}" style="width:100%;border:0" height="{height}">'
    return HTML(f"<div>{frame}</iframe></div>")  # a bare iframe makes IPython warn
