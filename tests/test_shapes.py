"""Types and shapes of what goes through the library: every public path is walked with the
annotations checked (jaxtyping, beartype). Tests of bad input run without, since that is refused
earlier then.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BEFORE = (  # what the library imports, which the hook would compile anew; then the hook
    "import matplotlib.pyplot\n"
    "from diffusers import DiffusionPipeline, StableDiffusionPipeline\n"
    "import sys; sys.path.insert(0, 'tests'); import conftest\n"
)


def checked(code):
    return subprocess.run(
        [sys.executable, "-c", BEFORE + code],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"DSD_LAB_SHAPES": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_every_path_keeps_to_its_annotations_and_a_wrong_shape_is_seen():
    done = checked(
        "from test_devices import PATHS, kit\n"
        "for name, path in PATHS.items():\n"
        "    print(name, flush=True)\n"
        "    path(kit('cpu'))\n"
        "import torch, dsd_lab.methods as m\n"
        "m.repel(torch.zeros(3, 2)); print('good')\n"
        "m.base.same_t(0.5, torch.zeros(3))"
    )
    assert done.stdout.endswith("good\n"), f"{done.stdout[-200:]}{done.stderr[-4000:]}"
    assert done.stdout.count("\n") > 50
    assert "TypeCheckError" in done.stderr and "same_t" in done.stderr
