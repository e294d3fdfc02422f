"""What every test and every notebook under test runs with: one thread unless told otherwise, since
two workers share two cores; no network, no font-cache noise.

Threads sleep while they wait: on a machine that does other things too, spinning ones make small
tensors forty times slower.
"""

import os

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "MPLBACKEND": "agg",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
)
os.environ["MKL_NUM_THREADS"] = os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

if "DSD_LAB_SHAPES" in os.environ:  # before the library is imported; see test_shapes
    from jaxtyping import install_import_hook

    install_import_hook("dsd_lab", "shape_checks.checked")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests stay with one worker, but for the lessons in a browser: these are shared."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Lessons(LoadFileScheduling):
        def _split_scope(self, nodeid):
            lesson = "::test_controls_of_a_lesson[" in nodeid
            return nodeid if lesson else super()._split_scope(nodeid)

    return Lessons(config, log)


def pytest_terminal_summary(terminalreporter):
    """Print what tests that passed have noted."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid} {name}: {value}")


@pytest.fixture(autouse=True)
def seeded():
    """Numbers that a test draws without a seed do not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture
def small_world():
    """20 pictures of 8x8 with two labels: 12 warm and 8 cold, all distinct."""
    from dsd_lab.worlds.pictures import PictureWorld, Source

    g = torch.Generator().manual_seed(7)
    pixels = torch.randint(0, 256, (20, 3, 8, 8), generator=g, dtype=torch.uint8)
    label = torch.tensor([0] * 12 + [1] * 8)
    return PictureWorld(
        name="small",
        prompts=("warm", "cold"),
        pixels=pixels,
        label=label,
        sources=(Source("made here", "noise", "Apache-2.0"),) * 20,
        aliases={},
        credit="",
    )


@pytest.fixture
def fixed_draws():
    from helpers import FixedDraws

    return FixedDraws


@pytest.fixture
def mixture():
    from helpers import make_mixture

    return make_mixture()


@pytest.fixture(scope="session")
def toy_world():
    from helpers import make_toy_world

    return make_toy_world()
