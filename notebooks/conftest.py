"""How the notebooks are tested: nbval compares every stored output but pictures and plotly's JSON."""

import os
import warnings
from pathlib import Path

import pytest

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # as in `dsd_lab.course.execute`: facts may differ between 1 and 2
        "MKL_NUM_THREADS": "1",
    }
)
FOLDER = Path(__file__).parent


def pytest_configure(config):
    """Build matplotlib's font cache here: in a fresh environment its first use prints a line on a
    cell's stderr.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import matplotlib.font_manager  # noqa: F401


def pytest_collectstart(collector):
    # plotly's JSON holds thousands of floats, a GIF is a picture; the facts printed beside them are
    # compared
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/vnd.plotly.v1+json", "image/gif")


def pytest_collection_modifyitems(items):
    for item in items:
        if FOLDER in Path(item.path).parents:
            item.add_marker(pytest.mark.slow)
