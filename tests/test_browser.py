"""What a browser shows of an exported mesh: read from its pixels, and drawn by another library.

Needs Chromium and three.js (`npm install three`; DSD_LAB_THREE names the folder, node_modules/three
unless set), and is skipped without.
"""

import functools
import html
import json
import os
import re
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from test_mesh import ball, solid

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
THREE = Path(os.environ.get("DSD_LAB_THREE", "node_modules/three")).resolve()
COLOUR = (200, 120, 60)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

DRAWN_BY_THREE = """<!DOCTYPE html><body><pre></pre>
<script type="importmap">{"imports": {"three": "./three/build/three.module.js"}}</script>
<script type="module">
import * as THREE from "three";
import { GLTFLoader } from "./three/examples/jsm/loaders/GLTFLoader.js";
const renderer = new THREE.WebGLRenderer({ preserveDrawingBuffer: true });
renderer.setSize(64, 64);
renderer.toneMapping = THREE.NoToneMapping;
renderer.outputColorSpace = THREE.SRGBColorSpace;
const camera = new THREE.PerspectiveCamera(40, 1, 0.1, 10);
camera.position.z = 3;
const gltf = await new GLTFLoader().loadAsync("ball.glb");
const kinds = [];
gltf.scene.traverse((thing) => {
  if (!thing.isMesh) return;
  kinds.push(thing.material.type);
  if (REPLACE)
    thing.material = new THREE.MeshBasicMaterial({ vertexColors: true, toneMapped: false });
});
const scene = new THREE.Scene();
scene.add(gltf.scene);
renderer.render(scene, camera);
const pixel = new Uint8Array(4), gl = renderer.getContext();
gl.readPixels(32, 32, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
document.querySelector("pre").textContent = JSON.stringify([[...pixel], kinds]);
</script>"""

READ_BACK = """<script>setTimeout(() => {
  draw();
  const pixel = new Uint8Array(4);
  gl.readPixels(canvas.width / 2, canvas.height / 2, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
  document.querySelector("p").innerHTML = `<pre>${JSON.stringify([...pixel])}</pre>`;
}, 100)</script>"""


@pytest.fixture
def mesh():
    colour = torch.tensor(COLOUR) / 255
    scene = solid(ball(), lambda points: colour.expand(*points.shape[:-1], 3), 32)
    return scene


@pytest.fixture
def served(tmp_path):
    """A folder and its address on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def result(address: str):
    """What a page writes into its <pre>, as JSON."""
    options = (
        "--headless --no-sandbox --disable-gpu-sandbox --use-gl=angle --use-angle=swiftshader "
    )
    options += "--enable-unsafe-swiftshader --disable-background-networking --no-first-run "
    options += "--virtual-time-budget=20000 --dump-dom"
    done = subprocess.run(
        [CHROMIUM, *options.split(), address], capture_output=True, text=True, timeout=120
    )
    found = re.search("<pre>(.+?)</pre>", done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.skipif(not THREE.is_dir(), reason=f"no three.js in {THREE}: npm install three")
@pytest.mark.parametrize("unlit", [False, True])
def test_three_js_shows_the_balls_colour(mesh, served, unlit):
    """Unlit, by a material of its own or by the file's KHR_materials_unlit."""
    folder, address = served
    (folder / "three").symlink_to(THREE, target_is_directory=True)
    mesh.export_mesh(folder / "ball.glb", resolution=32, unlit=unlit)
    page = DRAWN_BY_THREE.replace("REPLACE", "false" if unlit else "true")
    (folder / "page.html").write_text(page)
    pixel, kinds = result(f"{address}/page.html")
    assert kinds == ["MeshBasicMaterial" if unlit else "MeshStandardMaterial"]
    print(f"shown: {pixel[:3]}")
    assert pixel[:3] == pytest.approx(COLOUR, abs=3)


def test_the_page_shows_the_balls_colour(mesh, served):
    """Facing the lamp, which stands at the camera, a colour is what it is."""
    folder, address = served
    mesh.export_mesh(folder / "ball.html", resolution=32)
    text = (folder / "ball.html").read_text()
    assert "http" not in text.replace("http-equiv", "")  # it asks nobody for anything
    (folder / "ball.html").write_text(text.replace("</body>", READ_BACK + "</body>"))
    pixel = result(f"{address}/ball.html")
    print(f"shown: {pixel[:3]}")
    assert pixel[:3] == pytest.approx(COLOUR, abs=3)
