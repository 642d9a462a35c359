"""How far two runs of the same rows lie apart."""

import json
from pathlib import Path

import pytest

from benchmarks.timing import repeat


def run(folder: Path, seconds: dict[str, float], status: str = "timed") -> Path:
    """Records of rows of one op, and a line that was torn off."""
    folder.mkdir()
    rows = [
        {
            "kind": "timing",
            "op": "rope",
            "kernel": "k",
            "workload": w,
            "status": status,
            "seconds": s,
        }
        for w, s in seconds.items()
    ]
    lines = [json.dumps({"kind": "run"}), *map(json.dumps, rows), "[1]", '{"kind": "tim']
    (folder / "main.jsonl").write_text("\n".join(lines))
    return folder


def test_only_rows_of_both_runs_are_compared(tmp_path, capsys) -> None:
    a = run(tmp_path / "a", {"same": 1e-6, "slower": 1e-6, "gone": 1.0})
    b = run(tmp_path / "b", {"same": 1e-6, "slower": 1.1e-6, "new": 1.0})
    pairs = repeat.compare(a, b)
    assert ["slower", "same"] == [pair.key[2] for pair in pairs]
    assert [0.1, 0.0] == pytest.approx([pair.apart for pair in pairs])
    assert repeat.main([str(a), str(b)]) == 1
    assert "slower · k: 1.00 and 1.10 µs" in capsys.readouterr().out


def test_the_same_twice_is_well(tmp_path, capsys) -> None:
    a, b = (run(tmp_path / name, {"x": 1e-6, "y": 2e-6}) for name in "ab")
    assert repeat.main([str(a), str(b)]) == 0
    assert "2 rows of both runs" in capsys.readouterr().out


def test_nothing_to_compare_is_wrong_usage(tmp_path, capsys) -> None:
    a, b = run(tmp_path / "a", {"x": 1e-6}), run(tmp_path / "b", {"x": 1e-6}, status="wrong")
    assert repeat.main([str(a), str(b)]) == 2
    assert repeat.main([str(a), str(tmp_path / "c")]) == 2
    assert "there is no run" in capsys.readouterr().err


def test_rows_that_were_timed_in_two_ways_say_so(tmp_path, capsys) -> None:
    a, b = (run(tmp_path / name, {"x": 1e-6}) for name in "ab")
    for folder, how in ((a, "graph"), (b, "stream")):
        path = folder / "main.jsonl"
        path.write_text(path.read_text().replace('"rope"', f'"rope", "method": "{how}"'))
    assert repeat.main([str(a), str(b)]) == 0
    assert "(graph, warm; stream, warm)" in capsys.readouterr().out
