"""The report: what it counts, what it shows, and that record text can do no harm."""

import ast
import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # reports/ is run from the tree and is not installed

from reports import build, load, tables  # noqa: E402
from reports.__main__ import main  # noqa: E402

VOID_TAGS = {"meta", "path", "circle", "use", "input", "br"}


def head(run="r1", **changes):
    line = {
        "kind": "run",
        "schema": 1,
        "run": run,
        "started": "2026-11-22T10:00:00+00:00",
        "command": "nox -s conformance",
        "profile": "default",
        "git": "abc123",
        "dirty": False,
        "builds": {"simt": "b1", "cuda": None},
        "python": "3.11.7",
        "torch": "2.13.0",
        "platform": "Linux",
        "cpu": "a CPU",
        "gpu": None,
        "driver": None,
    }
    return line | changes


def verdict(status="pass", **changes):
    line = {
        "kind": "verdict",
        "run": "r1",
        "op": "append_kv",
        "kernel": "simt.naive",
        "case": "append_kv.Case(T=1)",
        "dtype": "float16",
        "family": "normal",
        "edges": [],
        "status": status,
        "check": None if status in ("pass", "unsupported") else "budget",
        "reason": None,
        "receipt": None,
        "seconds": 0.5,
        "repro": "yaie repro 'append_kv.Case(T=1)' --kernel simt.naive",
    }
    return line | changes


def receipt(used, **changes):
    numbers = {"actual": 0.1, "expected": 0.2, "allowed": 0.001}
    return {"output": "out", "used": used, "term": "a term", "index": [0, 1], **numbers, **changes}


def mutant(killed=True, **changes):
    line = {
        "kind": "mutant",
        "run": "r1",
        "mutant": "ak-skip",
        "op": "append_kv",
        "kernel": "simt.naive",
        "what": "slot -1 is written",
        "source": "the op's page",
        "killed": killed,
        "check": "frame" if killed else None,
        "cases": 12,
        "seconds": 3.1,
        "case": "append_kv.Case(T=1)",
        "reason": "changed",
    }
    return line | changes


def law(**changes):
    line = {
        "kind": "law",
        "run": "r1",
        "op": "append_kv",
        "kernel": "reference",
        "law": "parts merge",
        "class": "within the summed budgets",
        "peer": None,
        "calls": 7,
        "worst": 0.0,
        "ok": True,
    }
    return line | changes


def write(folder, *lines, name="main.jsonl", run="r1", first=None, tail=""):
    path = folder / run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in (first or head(run), *lines))
    path.write_text(text + tail, encoding="utf-8")
    return path


def read(folder, *lines, **kwargs):
    write(folder, *lines, **kwargs)
    return load.load(folder)


def pages(records):
    report = build.make(records)
    return build.html(report), build.markdown(report)


def status_of(folder, *more):
    return main(["--records", str(folder), "--out", str(folder / "out"), *more])


class Page(HTMLParser):
    """Tags in order, text outside scripts, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


# --- the numbers --------------------------------------------------------------------------------


def test_summary_counts_each_status_apart_and_judges_without_the_declined(tmp_path):
    lines = [verdict(status) for status in load.STATUSES] + [verdict()]
    row = tables.summary(read(tmp_path, *lines).verdicts).iloc[0]
    counts = row[["passed", "failed", "crashed", "timeout", "unsupported", "cases"]].tolist()
    assert counts == [2, 1, 1, 1, 1, 5]
    assert row["outcome"] == "fail"


def test_summary_takes_term_and_slowest_case_from_the_extreme_rows(tmp_path):
    table = tables.summary(
        read(
            tmp_path,
            verdict(receipt=receipt(0.2, term="small"), seconds=2.0, case="slow"),
            verdict(receipt=receipt(0.7, term="large"), seconds=0.5, case="fast"),
            verdict(receipt=None, seconds=1.5),
        ).verdicts
    )
    row = table.iloc[0]
    assert (row["worst_used"], row["term"]) == (0.7, "large")
    assert (row["slowest_seconds"], row["slowest_case"]) == (2.0, "slow")
    assert row["cases_per_second"] == 3 / 4.0


def test_summary_keeps_kernels_apart_and_failing_ones_first(tmp_path):
    table = tables.summary(
        read(
            tmp_path,
            verdict("unsupported", op="a", kernel="k0", reason="no GPU"),
            verdict(op="a", kernel="k1"),
            verdict("crash", op="b", kernel="k1"),
        ).verdicts
    )
    rows = list(zip(table["op"], table["kernel"], table["outcome"], strict=True))
    assert rows == [("b", "k1", "fail"), ("a", "k1", "pass"), ("a", "k0", "not judged")]


@pytest.mark.parametrize("used", [float("nan"), "nan", None, "NaN", float("inf"), "inf"])
def test_a_failing_receipt_without_a_finite_number_is_the_worst(tmp_path, used):
    failing = [verdict("fail", receipt=receipt(9.0)), verdict("fail", receipt=receipt(used))]
    records = read(tmp_path, *failing)
    assert math.inf == tables.summary(records.verdicts)["worst_used"].iloc[0]
    assert tables.failures(records.verdicts)["used"].iloc[1] == 9.0
    pages(records)


def test_a_passing_receipt_without_a_number_is_no_alarm(tmp_path):
    records = read(tmp_path, verdict(receipt=receipt(None)), verdict(receipt=receipt("0.25")))
    assert tables.summary(records.verdicts)["worst_used"].iloc[0] == 0.25


def test_failures_are_worst_first_and_count_their_kind(tmp_path):
    records = read(
        tmp_path,
        verdict("fail", case="2x", receipt=receipt(2.0)),
        verdict("fail", case="8x", receipt=receipt(8.0)),
        verdict("timeout", case="hang", check="timeout"),
        verdict("fail", case="frame", check="frame"),
        verdict("crash", case="crash", check="crash"),
        verdict(case="passes"),
    )
    table = tables.failures(records.verdicts)
    assert table["case"].tolist() == ["crash", "hang", "frame", "8x", "2x"]
    assert list(zip(table["like"], table["nth"], strict=True)) == [
        (1, 0),
        (1, 0),
        (1, 0),
        (2, 0),
        (2, 1),
    ]


def test_edges_count_judged_cases_and_name_the_kernels_that_never_met_them(tmp_path):
    records = read(
        tmp_path,
        verdict(edges=["T 0", "last slot"], kernel="a"),
        verdict("fail", edges=["T 0"], kernel="a"),
        verdict("unsupported", edges=["T 0", "huge"], kernel="b"),
        verdict(edges=["last slot"], kernel="b"),
    )
    table = tables.edges(records.verdicts, records.domains).set_index("edge")
    assert table["cases"].to_dict() == {"huge": 0, "T 0": 2, "last slot": 2}
    assert table["failures"].to_dict() == {"huge": 0, "T 0": 1, "last slot": 0}
    assert table["missed_by"].to_dict() == {"huge": "a, b", "T 0": "b", "last slot": ""}


def test_an_edge_that_no_case_met_is_listed_and_is_a_caution(tmp_path):
    domain = {"kind": "domain", "run": "r1", "op": "append_kv", "edges": ["T 0", "last slot"]}
    records = read(tmp_path, domain, verdict(edges=["T 0"]), domain)
    table = tables.edges(records.verdicts, records.domains).set_index("edge")
    assert table["cases"].to_dict() == {"last slot": 0, "T 0": 1}
    assert table["missed_by"].to_dict() == {"last slot": "simt.naive", "T 0": ""}
    for page in pages(records):
        assert "no judged case of append" in page
        assert "met the edge last slot" in page


def test_laws_are_a_row_each_with_the_kernels_that_were_held_to_them(tmp_path):
    records = read(
        tmp_path,
        verdict(),
        law(worst=0.25),
        law(kernel="torch.eager", worst=0.5),
        law(law="is the softmax", **{"class": None, "peer": "scipy"}),
    )
    table = tables.laws(records.laws)
    assert table[["law", "class", "peer", "kernels", "calls", "worst"]].values.tolist() == [
        ["parts merge", "within the summed budgets", "", "reference, torch.eager", 14, 0.5],
        ["is the softmax", "", "scipy", "reference", 7, 0.0],
    ]
    assert tables.outcome(records).state == "pass"
    page, summary = pages(records)
    assert "Laws and peers: 2 of 2 hold" in summary
    assert "parts merge" in page
    assert "scipy" in page


def test_a_broken_law_fails_and_comes_first(tmp_path):
    broken = law(law="rows are independent", ok=False)
    records = read(tmp_path, verdict(), law(), broken, law(law="rows are independent", kernel="b"))
    first = tables.laws(records.laws).iloc[0]
    assert (first["law"], first["broken_by"]) == ("rows are independent", "reference")
    assert tables.outcome(records).state == "fail"
    assert "1 law broken" in tables.outcome(records).title
    assert status_of(tmp_path) == 1
    assert "| rows are independent | append\\_kv |" in pages(records)[1]


def test_families_by_dtype_show_holes_as_zero(tmp_path):
    records = read(
        tmp_path,
        verdict(family="normal", dtype="float16"),
        verdict(family="normal", dtype="float16"),
        verdict(family="ties", dtype="float32"),
        verdict("unsupported", family="ties", dtype="float16"),
    )
    table = tables.families(records.verdicts).set_index("family")
    assert table["float16"].to_dict() == {"normal": 2, "ties": 0}
    assert table["float32"].to_dict() == {"normal": 0, "ties": 1}
    assert 'class="n hole"' in pages(records)[0]


def test_declined_cases_are_grouped_by_reason_and_are_no_passes(tmp_path):
    declined = [verdict("unsupported", reason="q_len > 1") for _ in range(3)]
    records = read(tmp_path, verdict(), *declined, verdict("unsupported", reason="D 40"))
    table = tables.unsupported(records.verdicts)
    assert list(zip(table["reason"], table["cases"], strict=True)) == [
        ("q_len > 1", 3),
        ("D 40", 1),
    ]
    assert tables.summary(records.verdicts)["passed"].iloc[0] == 1
    assert "q_len &gt; 1" in pages(records)[0]


def test_mutants_are_scored_and_survivors_come_first(tmp_path):
    lines = [mutant(mutant="easy", cases=1), mutant(False, mutant="alive"), mutant(cases=90)]
    records = read(tmp_path, *lines)
    assert (
        tables.score(records.mutants).killed,
        tables.score(records.mutants).total,
        tables.score(records.mutants).survived,
    ) == (2, 3, 1)
    assert tables.mutants(records.mutants)["mutant"].tolist() == ["alive", "ak-skip", "easy"]


def test_the_page_prints_the_numbers_of_the_tables(tmp_path):
    lines = [verdict(receipt=receipt(0.4321), seconds=0.002) for _ in range(1234)]
    page, summary = pages(read(tmp_path, *lines, mutant()))
    text = " ".join(" ".join(Page(page).text).split())
    for shown in ("1,234 cases judged on 1 kernel of 1 op", "1 of 1 mutant killed", "0.432"):
        assert shown in text
    assert "| append\\_kv | simt.naive | pass | 1,234 | 0 | 0 | 0 | 0 | 0.432 |" in summary


# --- reading ------------------------------------------------------------------------------------


def test_files_of_parallel_workers_make_one_run(tmp_path):
    write(tmp_path, verdict(), name="gw0.jsonl")
    write(tmp_path, verdict(), verdict(), name="gw1.jsonl")
    records = load.load(tmp_path)
    assert (len(records.runs), len(records.verdicts)) == (2, 3)
    assert list(tables.environment(records.runs).columns) == ["r1"]
    assert tables.environment(records.runs).loc["files", "r1"] == "2"


def test_a_torn_last_line_is_counted_and_is_not_green(tmp_path, capsys):
    write(tmp_path, verdict(), tail='{"kind": "verdict", "run": "r')
    records = load.load(tmp_path)
    assert (len(records.verdicts), records.torn) == (1, 1)
    assert status_of(tmp_path) == 3
    assert "INCONCLUSIVE: No failure, but the run is not whole" in capsys.readouterr().out
    assert "torn off by an interruption" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_torn_line_inside_a_character_and_a_torn_first_line_are_tolerated(tmp_path):
    path = write(tmp_path, verdict(), verdict(reason="ß"))
    path.write_bytes(json.dumps(head()).encode() + b"\n" + b'{"kind": "verdict", "op": "\xc3')
    (tmp_path / "r1" / "gw1.jsonl").write_text('{"kind": "ru')
    assert load.load(tmp_path).torn == 2


def test_a_failure_in_a_torn_run_is_a_failure(tmp_path):
    write(tmp_path, verdict("fail"), tail="{")
    assert status_of(tmp_path) == 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([head(schema=2)], "records of schema 2"),
        ([verdict()], "first line must be of kind 'run'"),
        ([head(), verdict("maybe")], "status 'maybe' is none of"),
        ([head(), verdict(op=None)], "verdict record has no 'op'"),
        ([head(), mutant("yes")], "'killed' must be true or false"),
        ([head(), [1]], "not a record"),
        ([head(), "broken", verdict()], "not a record"),
    ],
)
def test_what_cannot_be_trusted_is_an_error_in_words(tmp_path, capsys, lines, words):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert status_of(tmp_path) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "x.jsonl:" in error


def test_a_broken_line_in_the_middle_is_an_error_with_its_place(tmp_path, capsys):
    lines = [json.dumps(head()), '{"kind": "verd', json.dumps(verdict())]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    assert status_of(tmp_path) == 2
    assert "x.jsonl:2: not a JSON line" in capsys.readouterr().err


def test_records_of_a_kind_unknown_here_are_named_not_dropped_silently(tmp_path):
    records = read(tmp_path, verdict(), {"kind": "foreign", "run": "r1"})
    assert any("unknown kind 'foreign'" in note for note in records.notes)


def test_latest_is_the_newest_run_and_a_run_can_be_named(tmp_path, capsys):
    old, new = "2026-11-22T23:30:00+00:00", "2026-11-23T01:00:00+02:00"
    write(tmp_path, verdict("fail"), run="later", first=head("later", started=old))
    write(tmp_path, verdict(), run="zz", first=head("zz", started=new))
    assert status_of(tmp_path) == 1
    assert status_of(tmp_path, "--run", "zz") == 0
    assert status_of(tmp_path, "--run", "zz", "--run", "latest") == 1
    assert status_of(tmp_path, "--run", "nothing") == 2
    assert "no run nothing" in capsys.readouterr().err


def test_a_run_is_as_new_as_its_newest_file(tmp_path):
    resumed = head("a", started="2026-11-25T00:00:00+00:00")
    write(tmp_path, verdict("fail"), run="a", name="1.jsonl")
    write(tmp_path, verdict(), run="a", name="2.jsonl", first=resumed)
    write(tmp_path, verdict(), run="b", first=head("b", started="2026-11-24T00:00:00+00:00"))
    assert status_of(tmp_path) == 1


def test_mutants_of_the_same_code_join_the_newest_verdicts(tmp_path):
    newer = head("b", started="2026-11-23T00:00:00+00:00")
    write(tmp_path, mutant(), verdict("fail"), run="a")
    write(tmp_path, verdict(), run="b", first=newer)
    records = load.load(tmp_path)
    assert (len(records.verdicts), len(records.mutants)) == (1, 1)
    assert any("mutants are those of run a" in note for note in records.notes)


def test_mutants_of_other_code_do_not_join(tmp_path):
    newer = head("b", started="2026-11-23T00:00:00+00:00", builds={"simt": "b2"})
    write(tmp_path, mutant(), run="a")
    assert len(read(tmp_path, verdict(), run="b", first=newer).mutants) == 0


def test_workers_that_disagree_on_the_code_are_a_caution(tmp_path):
    write(tmp_path, verdict(), name="gw0.jsonl")
    write(tmp_path, verdict(), name="gw1.jsonl", first=head(git="def456"))
    assert "disagree on git" in pages(load.load(tmp_path))[0]


# --- exit status --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "lines"),
    [
        (0, [verdict()]),
        (0, [verdict(), verdict("unsupported"), mutant()]),
        (0, [mutant()]),
        (1, [verdict(), verdict("fail")]),
        (1, [verdict(), verdict("crash")]),
        (1, [verdict(), verdict("timeout")]),
        (1, [verdict(), mutant(False)]),
        (3, []),
        (3, [verdict("unsupported")]),
    ],
)
def test_exit_status(tmp_path, expected, lines):
    write(tmp_path, *lines)
    assert expected == status_of(tmp_path)


def test_nothing_on_disk_is_not_green_and_still_makes_the_page(tmp_path, capsys):
    assert status_of(tmp_path / "missing") == 3
    assert "INCONCLUSIVE: Nothing was measured" in capsys.readouterr().out
    assert "Nothing was measured" in (tmp_path / "missing" / "out" / "report.html").read_text(
        "utf-8"
    )


def test_an_empty_newest_run_does_not_borrow_the_green_of_an_older_one(tmp_path):
    write(tmp_path, verdict(), run="a")
    write(tmp_path, run="b", first=head("b", started="2026-11-23T00:00:00+00:00"))
    assert status_of(tmp_path) == 3


def test_only_mutants_says_that_no_kernel_was_judged(tmp_path):
    page, _ = pages(read(tmp_path, mutant()))
    assert "no case was judged in this run" in page


def test_a_kernel_that_declined_everything_is_named(tmp_path):
    records = read(tmp_path, verdict(), verdict("unsupported", kernel="cuda.naive"))
    page, summary = pages(records)
    assert "declined every case: cuda.naive of append_kv" in page
    assert "not judged" in summary


def test_the_command_prints_its_files_and_one_line_and_has_help(tmp_path):
    write(tmp_path, verdict())
    command = [sys.executable, "-m", "reports"]
    run = [*command, "--records", str(tmp_path), "--out", str(tmp_path / "o")]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    *paths, last = done.stdout.splitlines()
    assert last.startswith("PASS: Every judged case passed. 1 case judged")
    assert {path.name for path in (tmp_path / "o").iterdir()} == {Path(path).name for path in paths}
    usage = subprocess.run(
        [*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "exit status:" in usage.stdout


# --- the page -----------------------------------------------------------------------------------

HOSTILE = "</pre><script>alert(1)</script><img src=http://evil.test/x onerror=alert(2)> \"'&amp;"


def hostile_records(folder):
    return read(
        folder,
        verdict(
            "fail",
            **dict.fromkeys(("op", "kernel", "case", "dtype", "family", "check"), HOSTILE),
            reason=f"{HOSTILE}\x1b[31mred\x1b[0m \x00 \u202e \ud800",
            repro=HOSTILE,
            edges=[HOSTILE],
            receipt=receipt(2.0, output=HOSTILE, term=HOSTILE, index=HOSTILE),
        ),
        verdict("unsupported", reason=HOSTILE),
        mutant(False, what=HOSTILE, mutant=HOSTILE, source=HOSTILE, case=HOSTILE),
        first=head("r1", cpu=HOSTILE, command=HOSTILE),
    )


def test_record_text_cannot_become_markup(tmp_path):
    page = Page(pages(hostile_records(tmp_path))[0])
    assert not page.open
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert HOSTILE in page.text  # shown, every character of it


def test_control_characters_are_spelled_out_and_files_can_be_written(tmp_path):
    report = build.make(hostile_records(tmp_path))
    written = build.write(report, tmp_path / "out")
    page = written[0].read_text("utf-8")
    assert r"red \u0000 \u202e \ud800" in page
    assert not re.search("[\x00\x1b\u202e\ud800]", page)


def test_record_text_cannot_become_markdown(tmp_path):
    summary = pages(hostile_records(tmp_path))[1]
    outside = re.sub(r"^ *(`{3,})sh\n.*?\n *\1$", "", summary, flags=re.S | re.M)
    assert not re.search(r"<\w|://", outside)
    rows = [line for line in outside.splitlines() if line.startswith("|")]
    assert {13, 6} == {len(re.findall(r"(?<!\\)\|", row)) for row in rows}


@pytest.mark.parametrize("text", ["a ``` b", "````", "plain"])
def test_a_code_block_cannot_be_closed_by_its_content(text):
    first, *middle, last = build.fence(text).splitlines()
    assert [text] == middle
    assert first == last + "sh"
    assert last not in text


def test_the_page_loads_nothing_and_allows_no_foreign_script(tmp_path):
    text = pages(read(tmp_path, verdict("fail", receipt=receipt(2.0)), mutant()))[0]
    page = Page(text)
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert "src" not in attrs
        assert attrs.get("href", "#").startswith("#")
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in text.replace("http-equiv", "")
    policy = page.all("meta")[1]["content"]
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in policy


def test_the_page_stands_without_its_script(tmp_path):
    lines = [verdict("fail", receipt=receipt(2.0), edges=["T 0"]), mutant()]
    page = Page(pages(read(tmp_path, *lines))[0].split("<script>")[0] + "</body></html>")
    text = " ".join(page.text)
    for shown in ("FAIL", "yaie repro 'append_kv.Case(T=1)'", "a term", "T 0", "ak-skip", "abc123"):
        assert shown in text
    assert all("hidden" in attrs for attrs in page.all("div") if attrs.get("class") == "tools")


def test_tables_carry_what_sorting_needs(tmp_path):
    lines = [verdict("fail", receipt=receipt("inf")), verdict(kernel="k2", seconds=None)]
    page = Page(pages(read(tmp_path, *lines))[0])
    kernels = [table for table in page.all("table") if table.get("id") == "kernel-table"]
    assert "data-sortable" in kernels[0]
    assert {"text", "number"} == {th["data-type"] for th in page.all("th") if "data-type" in th}
    values = [td["data-value"] for td in page.all("td") if td.get("class", "").startswith("n")]
    assert "Infinity" in values
    assert "" in values
    assert not {"nan", "inf", "NaN"} & set(values)


def test_ids_are_unique_and_every_anchor_has_its_target(tmp_path):
    lines = [verdict(edges=["T 0"]), verdict("fail"), verdict("unsupported"), mutant(), mutant()]
    page = Page(pages(read(tmp_path, *lines))[0])
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = {attrs["href"][1:] for _, attrs in page.tags if "href" in attrs}
    for name in ("aria-labelledby", "popovertarget", "data-filter"):
        wanted |= {attrs[name] for _, attrs in page.tags if name in attrs}
    assert wanted <= set(ids)


def test_many_failures_of_a_kind_are_folded_and_counted(tmp_path):
    lines = [verdict("fail", case=f"c{n:03}", receipt=receipt(2.0 + n)) for n in range(300)]
    page, summary = pages(read(tmp_path, *lines))
    assert page.count('<article class="failure"') == 1
    assert "worst of 300 alike" in page
    assert "Shown: 10 of 300" in page
    assert "300 alike" in summary


def test_the_summary_is_bounded_whatever_the_records_hold(tmp_path):
    long = "<|`@" * 5000
    text = dict.fromkeys(("reason", "repro", "case", "check"), long)
    lines = [verdict("fail", op=f"{n}{long}", kernel=long, **text) for n in range(150)]
    lines += [mutant(False, mutant=long, what=long) for _ in range(40)]
    summary = pages(read(tmp_path, *lines))[1]
    assert len(summary.encode()) < 256 * 1024
    assert summary.count("| **FAIL** |") == 100
    assert "50 more rows are in `kernels.csv`" in summary
    assert "15 more are in `mutants.csv`" in summary


def test_reports_imports_nothing_of_yaie():
    for path in (ROOT / "reports").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "yaie"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0000021, "2.1 µs"),
        (0.0123, "12.3 ms"),
        (1.5, "1.5 s"),
        (math.nan, "—"),
        (4000.0, "4,000 s"),
    ],
)
def test_seconds_have_a_readable_unit(value, shown):
    assert shown == build.seconds(value)
