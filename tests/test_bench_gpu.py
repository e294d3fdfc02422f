"""The bench of text to 3-D at full size, on small networks: whether it runs, and what it counts."""

import json

import pytest
import torch

from dsd_lab.cli import app, main
from dsd_lab.minis.random_weights import SHAPES, random_pipeline


@pytest.mark.slow
def test_bench_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    file = tmp_path / "bench.json"
    words = "bench gpu --tiny --shape sd-2.1 --size 8 --steps 2 --device cpu".split()
    app([*words, "--out", str(file)], standalone_mode=False)
    found = json.loads(file.read_text())
    assert found["device"]["torch"] == torch.__version__ and found["device"]["tiny"]
    rows = {row["method"]: row for row in found["rows"]}
    assert [row["evaluations a view and step"] for row in rows.values()][::2] == [4, 12]
    anew = rows["DSD, simulated anew"]["evaluations a view and step"]
    assert anew > 12 and all(row["seconds a step"] > 0 for row in rows.values())
    printed = capsys.readouterr().out
    assert all(f"| sd-2.1 | {name} | 8 |" in printed for name in rows)


def test_bench_says_what_there_is(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["dsd-lab", "bench", "cpu"])
    with pytest.raises(SystemExit):
        main()
    assert 'unknown bench "cpu"' in capsys.readouterr().err


def test_networks_have_their_published_sizes():
    """In millions: the model cards' 866, and 2.6 and 2 thousand."""
    sizes = {"sd-2.1": 866, "sdxl": 2567, "sd3": 2028}
    for name, millions in sizes.items():
        pipe = random_pipeline(name, device="meta")
        network = pipe.transformer if name == "sd3" else pipe.unet
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=1)
    assert set(sizes) == set(SHAPES)
