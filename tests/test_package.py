import inspect
import subprocess
import sys

import dsd_lab

HEAVY = (
    "diffusers",
    "transformers",
    "plotly",
    "matplotlib",
    "ipywidgets",
    "typer",
    "resvg_py",
    "nbclient",
    "IPython",
)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, dsd_lab; print(*sys.modules, sep='\\n')"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"torch", "dsd_lab.tasks", "dsd_lab.distill"} <= set(out)
    assert not set(HEAVY) & set(out)


def test_what_is_public_is_there_and_says_what_it_is():
    for name in dsd_lab.__all__:
        thing = getattr(dsd_lab, name)
        text = thing.__doc__ or ""
        assert text.strip(), name
        if inspect.isclass(thing):
            assert not text.startswith(f"{name}("), (
                f"{name}: the docstring that a dataclass makes up"
            )
