"""Our fastest kernel beside every peer, as tables."""

import json
from pathlib import Path
from typing import Any

from benchmarks.timing import beside


def run(folder: Path, *rows: dict[str, Any]) -> Path:
    """Records of timed rows."""
    common = {"kind": "timing", "op": "rope", "workload": "w", "status": "timed", "cold": True}
    common |= {"spread": 0.001, "limit": 1e-6, "bound": "memory"}
    (folder / "main.jsonl").write_text("\n".join(json.dumps(common | row) for row in rows))
    return folder


def test_the_fastest_of_ours_stands_beside_all_peers(tmp_path, capsys) -> None:
    run(
        tmp_path,
        {"kernel": "cuda.naive", "seconds": 9e-6},
        {"kernel": "cuda.vec", "seconds": 2e-6},
        {"kernel": "torch.eager", "seconds": 8e-6},
        {"kernel": "torch.compile", "seconds": 4e-6},
        {"kernel": "torch.eager", "workload": "not ours", "seconds": 1e-6},
        {"kernel": "cuda.vec", "workload": "alone", "cold": False, "seconds": 3e-6},
        {"kernel": "torch.flex", "cold": False, "seconds": 1e-6},
        {"kernel": "torch.eager", "op": "greedy", "seconds": 1e-6},
    )
    assert beside.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| rope | kernel | time | ± | of the limit"
        " | torch.compile | torch.eager | torch.flex | best peer |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        "| alone | cuda.vec | 3 µs (warm) | 0.1% | 33% of memory | – | – | – | – |",
        "| w | cuda.vec | 2 µs | 0.1% | 50% of memory | 4 µs | 8 µs | 1 µs (warm) | 0.5 |",
    ]


def test_a_run_without_kernels_of_ours_has_no_table(tmp_path, capsys) -> None:
    run(tmp_path, {"kernel": "torch.eager", "seconds": 1e-6})
    assert beside.main([str(tmp_path)]) == 2
    assert "no kernel of ours" in capsys.readouterr().err
    assert beside.main([str(tmp_path / "gone")]) == 2
    assert "there is no run" in capsys.readouterr().err
