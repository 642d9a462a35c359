"""The page of the benchmarks: what it counts, what it shows, and that it works offline."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timing_records as made

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # reports/ is run from the tree and is not installed

from reports import bench, charts, load, timings  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OLD, NEW = "2026-11-20T10:00:00+00:00", "2026-11-22T10:00:00+00:00"
HOSTILE = "</script></pre><script>alert(1)</script><img src=http://evil.test/x onerror=alert(2)>"


def read(folder: Path, *lines: Any) -> load.Records:
    made.write(folder, *lines)
    return load.load(folder)


def table(folder: Path, *lines: Any) -> pd.DataFrame:
    return timings.rows(read(folder, *lines).timings)


def peer(seconds: float, kernel: str = "torch.eager", **changes: Any) -> dict[str, Any]:
    return made.timing(seconds, kernel=kernel, role="peer", **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a whole run that has one before it."""
    folder = tmp_path_factory.mktemp("whole")
    made.write(folder, *made.a_whole_run(1.5), run="b0", first=made.head("b0", started=OLD))
    made.write(folder, *made.a_whole_run(), first=made.head(started=NEW))
    assert 0 == bench.main(["--records", str(folder), "--out", str(folder / "out")])
    return folder / "out"


# The numbers ---------------------------------------------------------------------------------


def test_a_ratio_is_the_time_over_that_of_the_best_other_peer(tmp_path: Path) -> None:
    lines = made.timing(2e-5), peer(4e-5), peer(1e-5, "flashinfer.append")
    found = table(tmp_path, *lines).set_index("kernel")
    ratios = {"cuda.vec": 2.0, "torch.eager": 4.0, "flashinfer.append": 0.25}
    assert ratios == pytest.approx(found["ratio"].to_dict())
    assert found.loc["flashinfer.append", "peer"] == "torch.eager"


EXECUTOR_SKIPPED = made.untimed("skipped", kernel="simt.vec", role="executor")


@pytest.mark.parametrize("status", ["wrong", "invalid", "declined", "executor", "skipped", "slow"])
def test_what_has_no_time_is_compared_with_nothing(tmp_path: Path, status: str) -> None:
    bad = made.untimed(status, kernel="torch.eager", role="peer")
    found = table(tmp_path, made.timing(), bad).set_index("kernel")
    assert found["ratio"].isna().all()
    assert found.loc["torch.eager", ["seconds", "of_limit"]].isna().all()


def test_other_workloads_and_devices_are_not_compared(tmp_path: Path) -> None:
    lines = made.timing(), peer(1e-5, workload="other"), peer(1e-5, device="cpu")
    assert table(tmp_path, *lines)["ratio"].isna().all()


def test_the_last_record_of_a_row_counts(tmp_path: Path) -> None:
    found = table(tmp_path, made.untimed("skipped"), made.timing(3e-5))
    assert [3e-5] == found["seconds"].tolist()


def test_the_worst_of_ours_come_first(tmp_path: Path) -> None:
    lines = (
        peer(1e-5),
        made.timing(2e-5, kernel="cuda.a"),
        made.timing(9e-5, kernel="cuda.b"),
        made.timing(1e-5, kernel="cuda.c", workload="alone", limit=1e-6),
        made.timing(1e-5, kernel="cuda.d", workload="alone", limit=1e-7),
        made.timing(9e-4, kernel="cuda.e", unsteady=True),
    )
    order = timings.worst_first(table(tmp_path, *lines))["kernel"].tolist()
    assert ["cuda.b", "cuda.a", "cuda.d", "cuda.c", "cuda.e", "torch.eager"] == order


def test_families_are_geometric_means(tmp_path: Path) -> None:
    lines = made.timing(4e-5), peer(1e-5), made.timing(1e-5, workload="b"), peer(1e-5, workload="b")
    found = timings.families(table(tmp_path, *lines)).set_index("kernel")
    assert found.loc["cuda.vec", "ratio"] == pytest.approx(2.0)
    assert found.loc["cuda.vec", "worst"] == "llama3-8b decode, batch 256"
    assert found.loc["cuda.vec", "rows"] == 2


def test_served_time_adds_up_weights_times_the_best(tmp_path: Path) -> None:
    a, b = {"weights": {"chat": 100}}, {"weights": {"chat": 10}, "workload": "b"}
    lines = (
        *(made.timing(2e-5, **a), made.timing(1e-5, kernel="cuda.naive", **a), peer(4e-5, **a)),
        *(made.timing(3e-5, **b), peer(1e-5, **b)),
    )
    (mix,) = timings.served(table(tmp_path, *lines))
    assert (mix.ours, mix.peers) == (pytest.approx(1.3e-3), pytest.approx(4.1e-3))
    assert () == mix.missing
    missing = made.untimed("skipped", **b)
    (mix,) = timings.served(table(tmp_path / "x", made.timing(**a), missing))
    assert ("append_kv: b",) == mix.missing


def test_the_trend_compares_runs_of_one_machine_on_what_both_timed(tmp_path: Path) -> None:
    old = made.timing(4e-5), made.timing(1.0, workload="gone")
    made.write(tmp_path, *old, run="b0", first=made.head("b0", started=OLD))
    made.write(tmp_path, *old, run="bx", first=made.head("bx", started=OLD, gpu="another"))
    made.write(tmp_path, made.timing(1e-5), first=made.head(started=NEW))
    found = timings.trend(timings.history(tmp_path), "b1").set_index("run")
    assert {"b0": 4.0, "b1": 1.0} == pytest.approx(found["relative"].to_dict())
    assert found.loc["b0", "workloads"] == 1


# The verdict ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([made.timing()], 0),
        ([made.timing(), made.untimed("wrong", kernel="cuda.naive")], 1),
        ([made.timing(), made.untimed("invalid", kernel="cuda.naive")], 1),
        ([made.timing(), made.untimed("crash", kernel="cuda.naive")], 1),
        ([made.timing(), made.untimed("wrong", kernel="simt.vec", role="executor")], 1),
        ([made.timing(), made.untimed("wrong", kernel="torch.x", role="peer")], 0),
        ([made.timing(), made.untimed("declined", kernel="cuda.naive")], 0),
        ([made.untimed("executor", kernel="simt.vec", role="executor")], 3),
        ([made.timing(unsteady=True, spread=0.2)], 3),
        ([made.timing()] + [made.untimed("skipped", workload=str(i)) for i in range(3)], 3),
        ([made.timing()] + [EXECUTOR_SKIPPED] * 9, 0),
        ([], 3),
    ],
)
def test_exit_status(tmp_path: Path, lines: list[Any], status: int) -> None:
    made.write(tmp_path, *lines)
    assert status == bench.main(["--records", str(tmp_path), "--out", str(tmp_path / "out")])


def test_what_limits_trust_is_said(tmp_path: Path) -> None:
    throttled = {"sm_mhz": [1200, 1300, 1400], "throttle_bits": 0x4 | 0x40 | 0x1}
    records = read(
        tmp_path,
        made.timing(conditions=throttled, notes={"bursts_not_held": 2}, cold=False),
        made.timing(workload="b", conditions={"stolen": [0.0, 0.2, 0.4]}, unsteady=True),
        made.untimed("wrong", "frame: q", kernel="torch.x", role="peer"),
        made.untimed("skipped", workload="c", weights={"chat": 1}),
        EXECUTOR_SKIPPED,
    )
    said = "\n".join(timings.cautions(records, timings.rows(records.timings)))
    for words in (
        "power cap, hardware thermal limit",
        "the stream ran dry",
        "1 row timed warm",
        "1 row unsteady",
        "torch.x of append_kv failed 1 row",
        "2 rows not reached before the time budget was spent, 1 of them of the executor",
        "no served time for the mix chat",
    ):
        assert words in said


def test_a_run_that_was_cut_off_is_not_green(tmp_path: Path) -> None:
    path = made.write(tmp_path, made.timing())
    path.write_text(path.read_text() + '{"kind": "timing", "op')
    assert 3 == bench.main(["--records", str(tmp_path), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (made.timing(status="fast"), "status 'fast' is none of"),
        (made.timing(0.0), "without a time"),
        (made.timing(op=None), "no 'op'"),
        ({**made.PEAKS, "memory": None}, "no 'memory'"),
    ],
)
def test_what_cannot_be_trusted_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: Any, words: str
) -> None:
    made.write(tmp_path, line)
    assert 2 == bench.main(["--records", str(tmp_path), "--out", str(tmp_path / "out")])
    assert words in capsys.readouterr().err


# The files -----------------------------------------------------------------------------------


def test_tables_lie_beside_the_page(whole: Path) -> None:
    frame = pd.read_csv(whole / "timings.csv")
    lines = [json.loads(line) for line in (whole / "timings.jsonl").read_text().splitlines()]
    assert len(frame) == len(lines) == 21
    assert len(lines[0]["samples"]) == 40
    assert lines[-1]["seconds"] is None  # JSON has no NaN
    if (whole / "timings.parquet").exists():
        pytest.importorskip("pyarrow")
        assert pd.read_parquet(whole / "timings.parquet")["kernel"].tolist() == [
            line["kernel"] for line in lines
        ]


class Page(HTMLParser):
    """Tags in order, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_loads_nothing_and_stands_without_scripts(whole: Path) -> None:
    page = Page((whole / "bench.html").read_text("utf-8"))
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img", "image")
        assert "src" not in attrs
        assert not (attrs.get("xlink:href") or attrs.get("href") or "#").startswith("http")
    policy = page.all("meta")[1]["content"] or ""
    assert "default-src 'none'" in policy
    assert "eval" not in policy
    text = " ".join(" ".join(page.text).split())
    for shown in (
        "PASS",
        "29.6×",
        "paged_attention",
        "2.34 ms",
        "SDPA has no softcap",
        "4,600 GB/s",
    ):
        assert shown in text
    assert all("hidden" in attrs for attrs in page.all("div") if attrs.get("class") == "tools")


def test_each_row_says_how_to_measure_it_again(whole: Path) -> None:
    text = (whole / "bench.html").read_text("utf-8")
    assert text.count("python -m benchmarks --op append_kv") >= 18


def test_ids_are_unique_and_every_anchor_has_its_target(whole: Path) -> None:
    page = Page((whole / "bench.html").read_text("utf-8"))
    pictures = re.compile(r"^(gradient|clip)")
    ids = [a["id"] for _, a in page.tags if "id" in a and not pictures.match(a["id"] or "")]
    assert len(ids) == len(set(ids))
    wanted = {a["href"][1:] for a in page.all("a")} | {a["href"][1:] for a in page.all("use")}
    for name in ("aria-labelledby", "popovertarget", "data-filter"):
        wanted |= {a[name] for _, a in page.tags if name in a}
    assert wanted <= set(ids)


def test_record_text_cannot_become_markup(tmp_path: Path) -> None:
    names = dict.fromkeys(("workload", "kernel", "case", "source", "reason", "audit"), HOSTILE)
    records = read(tmp_path, made.timing(**names), made.untimed("wrong", HOSTILE, op=HOSTILE))
    page = bench.make(records)
    text = bench.html(page)
    parsed = Page(text)
    assert not [a for _, a in parsed.tags if any(name.startswith("on") for name in a)]
    assert [] == parsed.all("img")
    assert "<script>alert" not in text
    assert "<img" not in bench.markdown(page)


def test_without_the_charting_libraries_the_tables_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "available", lambda: False)
    text = bench.html(bench.make(read(tmp_path, *made.a_whole_run())))
    assert "29.6×" in text
    assert "No charts" in text
    assert len(text) < 200_000


def test_the_summary_for_ci_is_short(whole: Path) -> None:
    text = (whole / "bench.md").read_text("utf-8")
    assert "PASS" in text
    assert "| paged\\_attention | llama3\\-8b chunk of 512 after 1536 | cuda.naive |" in text
    assert "Served time of the mix chat" in text


@pytest.mark.parametrize(
    ("seconds", "shown"), [(2.5e-6, "2.5 µs"), (0.0181, "18.1 ms"), (2, "2 s")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert shown == charts.duration(seconds)


def test_geometric_means_leave_out_what_is_not_there() -> None:
    assert 2.0 == pytest.approx(timings.geometric_mean(pd.Series([1.0, 4.0, math.nan])))
    assert math.isnan(timings.geometric_mean(pd.Series([], dtype="float64")))


def test_the_summary_counts_our_best_kernel_of_each_workload(tmp_path: Path) -> None:
    lines = made.timing(2e-5), made.timing(8e-5, kernel="cuda.naive"), peer(4e-5)
    other = {"workload": "other"}
    found = table(tmp_path, *lines, made.timing(8e-5, **other), peer(1e-5, **other))
    assert 2.0 == pytest.approx(timings.of_best(found))


def test_what_nsight_compute_says_stands_behind_show(tmp_path: Path) -> None:
    notes = {"ncu": {"error": "no permission"}}
    lines = made.timing(), made.timing(workload="other", notes=notes), peer(1e-5, notes={})
    text = bench.html(bench.make(read(tmp_path, *lines)))
    assert "2,500 GB/s of memory, 47.0% of the warps that fit" in text
    assert "long scoreboard (7.1)" in text
    assert "Nsight Compute: no permission" in text
    assert 2 == text.count("Nsight Compute")


def test_conformance_counts_what_was_judged_and_what_was_compared(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        made.timing(),
        made.timing(workload="other", used=0.7, judged_case="append_kv.Case(T=1)"),
        made.timing(workload="large", audit="too large for the reference: they agree"),
        made.untimed("wrong", workload="third", judged_case="append_kv.Case(T=2)"),
        made.untimed("declined", kernel="cuda.never"),
    )
    (line,) = timings.conformance(found).to_dict("records")
    assert ("append_kv", "cuda.vec", 3, 2) == tuple(
        line[k] for k in ("op", "kernel", "cases", "passed")
    )
    assert (0.7, 2, 1, 1) == tuple(line[k] for k in ("used", "compared", "repeated", "failed"))


# In a browser --------------------------------------------------------------------------------

DRIVER = """
(async () => {
  while (document.body.dataset.charts !== "drawn") await new Promise((r) => setTimeout(r, 50));
  const found = { charts: document.querySelectorAll(".drawn svg").length };
  const rows = () => Array.from(document.querySelector("#time-table").tBodies[0].rows);
  const times = () => rows().map((row) => Number(row.cells[3].dataset.value));
  const heading = document.querySelector("#time-table").tHead.rows[0].cells[3];
  heading.querySelector("button").click();
  found.falling = times();
  heading.querySelector("button").click();
  found.rising = times();
  const input = document.querySelector("[data-filter=time-table] input");
  input.value = "split_kv gemma2";
  input.dispatchEvent(new Event("input"));
  found.filtered = rows().filter((row) => !row.hidden).length;
  found.wide = document.documentElement.scrollWidth - innerWidth;
  found.pictures = document.querySelectorAll(".picture:not([hidden])").length;
  document.title = JSON.stringify(found);
})();
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.skipif(not charts.available(), reason="altair and vl-convert are not installed")
def test_in_a_browser(whole: Path, tmp_path: Path) -> None:
    """Charts are drawn, tables sort and filter, and nothing is asked of the network."""
    text = (whole / "bench.html").read_text("utf-8")
    digest = bench._digest(DRIVER)
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    file = tmp_path / "driven.html"
    body, _, end = text.rpartition("</body>")
    file.write_text(f"{body}<script>{DRIVER}</script></body>{end}", "utf-8")
    log = tmp_path / "net.json"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
            *("--enable-logging=stderr", "--virtual-time-budget=60000", f"--log-net-log={log}"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,900", "--dump-dom"),
            f"file://{file}",
        ],
        capture_output=True,
        text=True,
        timeout=150,
    )
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None, done.stderr[-2000:]
    found = json.loads(title[1])
    assert 5 == found["charts"]
    assert 0 == found["pictures"]
    assert found["falling"] == sorted(found["falling"], reverse=True)
    assert found["rising"] == sorted(found["rising"])
    assert 1 == found["filtered"]
    assert found["wide"] <= 0
    assert "CONSOLE" not in done.stderr
    asked = re.findall(r'"url":"(https?://[^"]+)"', log.read_text("utf-8", errors="replace"))
    assert [] == [url for url in asked if "evil" in url or "vega" in url or "cdn" in url]
