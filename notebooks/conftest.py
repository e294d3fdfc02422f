"""How the notebooks are tested: nbval compares every stored output but pictures and plotly's JSON."""

import os
import warnings

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
    }
)


def pytest_configure(config):
    """Build matplotlib's font cache here: in a fresh environment its first use prints a line on a cell's stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import matplotlib.font_manager  # noqa: F401


def pytest_collectstart(collector):
    # plotly's JSON holds thousands of floats; the facts printed beside the figure are what is compared
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/vnd.plotly.v1+json",)
