"""Types and shapes of what goes through the library: every public path is walked with the
annotations checked (jaxtyping, beartype). Tests of bad input run without, since that is refused
earlier then.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments],
        cwd=HERE.parent,
        env=os.environ | {"DSD_LAB_SHAPES": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_every_path_keeps_to_its_annotations():
    walked = run("tests/test_devices.py")
    assert walked.returncode == 0, walked.stdout[-4000:]


@pytest.mark.slow
def test_a_wrong_shape_is_seen():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import conftest, torch, dsd_lab.methods as m\n"
        "m.repel(torch.zeros(3, 2)); print('good')\n"
        "m.base.same_t(0.5, torch.zeros(3))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HERE.parent,
        env=os.environ | {"DSD_LAB_SHAPES": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "good\n" and "TypeCheckError" in done.stderr
