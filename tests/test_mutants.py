"""The mutants are described well and apply to the present sources, and the tool counts honestly.

What needs a compiler (a harmless change survives, one that does not compile is an error) is part of
every run of `nox -s mutants`; alone: `python -m conformance.mutants --selftest`.
"""

import pytest

from conformance.mutants import build, catalogue, overlay, sample, table
from conformance.mutants.__main__ import main, status
from conformance.mutants.catalogue import CatalogueError, Edit, Mutant, Trial
from conformance.mutants.hunt import Fate
from conformance.mutants.table import Row
from yaie import ops

CATALOGUE = catalogue.load()
DEFECTS = [m for m in CATALOGUE if m.expect == "killed"]
OURS = {f"{op.name}/{path.stem}.cu" for op in ops.OPS.values()
        for path in (catalogue.CSRC / op.name).glob("*.cu")}  # fmt: skip

KILLED = Fate("killed", "budget", 3, 1.5, "copy_blocks.Case()", "wrong")
SURVIVED = Fate("survived", cases=400)
ERROR = Fate("error", "build", reason="error: expected ';'")


def mutant(**fields):
    given = {"id": "m", "op": "copy_blocks", "kernels": ("simt.naive",), "what": "w"}
    given |= {"source": "s", "file": "copy_blocks/naive.cuh"}
    return Mutant(**{**given, "edits": (Edit("src == dst", "src != dst"),), **fields})


def row(fate, **fields):
    made = mutant(**fields)
    return Row(Trial(made, made.kernels[0]), fate)


def write(folder, text):
    (folder / "copy_blocks.toml").write_text(text)
    return folder


@pytest.mark.parametrize("planted", CATALOGUE, ids=lambda m: m.id)
def test_applies_and_changes_something(planted):
    assert planted.path.read_text() != planted.apply()


@pytest.mark.parametrize("planted", CATALOGUE, ids=lambda m: m.id)
def test_is_described(planted):
    assert planted.op in ops.OPS
    assert planted.kernels
    assert planted.what and planted.source
    for name in planted.kernels:
        assert name in ops.get(planted.op).kernels
        assert planted.in_python or Trial(planted, name).unit in OURS
        assert planted.in_python != name.startswith("simt.")
    for words in (planted.survives, planted.open):
        assert words is None or len(words) > 20
    assert planted.survives is None or planted.open is None


@pytest.mark.parametrize("op", ops.OPS)
def test_there_are_enough(op):
    assert len([m for m in DEFECTS if m.op == op]) >= 6


def test_every_kernel_and_every_page_has_some():
    compiled = [m for m in DEFECTS if not m.in_python]
    assert OURS == {Trial(m, name).unit for m in compiled for name in m.kernels}
    judged = {m.op for m in DEFECTS if m.in_python}
    assert set(ops.OPS) == judged


def test_a_sample_takes_all_that_changed_and_the_same_others_again(monkeypatch):
    trials = [Trial(m, name) for m in CATALOGUE for name in m.kernels]
    changed = {catalogue.CSRC / "copy_blocks" / "vec.cu"}
    monkeypatch.setattr(sample, "changed_files", lambda revision: changed)
    own = [t.name for t in trials if t.mutant.op == "copy_blocks" and not t.mutant.in_python]
    assert own == [t.name for t in sample.choose(trials, None, "main")]
    drawn = sample.choose(trials, 5, "main")
    assert set(own) < {t.name for t in drawn}
    assert len(own) + 5 == len(drawn)
    assert drawn == sample.choose(trials, 5, "main")
    assert trials == sample.choose(trials, None, None)
    assert 7 == len(sample.choose(trials, 7, None))


def test_an_unknown_revision_is_named():
    with pytest.raises(CatalogueError, match="no-such-revision"):
        sample.changed_files("no-such-revision")


def test_a_python_mutant_is_a_package_of_its_own(tmp_path):
    planted = next(m for m in DEFECTS if m.in_python)
    made = overlay.build(Trial(planted, planted.kernels[0]), tmp_path / "overlay")
    assert planted.apply() == (made / planted.file).read_text()
    assert (made / "yaie" / "op.py").read_text() == (catalogue.ROOT / "yaie/op.py").read_text()


def test_the_guides_defects_are_in():
    of_guide = [m for m in DEFECTS if "guide" in m.source]
    assert len([m for m in of_guide if m.op == "copy_blocks"]) >= 3
    assert len([m for m in of_guide if m.op == "paged_attention"]) >= 4


def test_an_edit_that_fits_nowhere_names_mutant_and_file():
    with pytest.raises(CatalogueError, match=r"mutant m: .*csrc/copy_blocks/naive.cuh, occurs 0"):
        mutant(edits=(Edit("no such text", ""),)).apply()


def test_an_edit_that_fits_twice_is_refused():
    with pytest.raises(CatalogueError, match="occurs 2 times"):
        mutant(edits=(Edit("const int64_t", "const int"),)).apply()


def test_a_missing_file_is_named():
    with pytest.raises(CatalogueError, match=r"no file csrc/gone\.cuh"):
        mutant(file="gone.cuh").apply()


@pytest.mark.parametrize(
    "text, says",
    [
        ("[[mutant]", "copy_blocks.toml"),
        ("[[mutant]]\nid = 'a'\n", "mutant a: 'edit'"),
        ("[[mutant]]\nid = 'a'\nkernel = 'b'\nkernels = []\nedit = []\n", "kernel"),
    ],
)
def test_a_bad_catalogue_is_named(tmp_path, text, says):
    with pytest.raises(CatalogueError, match=says):
        catalogue.load(write(tmp_path, text))


def test_an_id_used_twice_is_refused(tmp_path):
    one = "[[mutant]]\nid='a'\nkernels=[]\nfile='f'\nwhat='w'\nsource='s'\nedit=[]\n"
    with pytest.raises(CatalogueError, match="mutant a: the id is used twice"):
        catalogue.load(write(tmp_path, one * 2))


def test_status_is_0_when_every_fate_is_the_expected_one():
    rows = [
        row(KILLED),
        row(SURVIVED, survives="needs 2^31 elements"),
        row(SURVIVED, expect="survived"),
        row(ERROR, expect="error"),
    ]
    assert status(rows) == 0
    assert "1 of 2 mutants killed (50.0%); 1 survive for a stated reason" in table.score(rows)


@pytest.mark.parametrize(
    "bad",
    [
        row(SURVIVED),
        row(ERROR),
        row(ERROR, survives="needs 2^31 elements"),
        row(KILLED, expect="survived"),
        row(KILLED, expect="error"),
    ],
    ids=["survivor", "error", "excused error", "harmless change killed", "no compiler error"],
)
def test_status_is_1_when_one_is_not(bad):
    assert status([row(KILLED), bad]) == 1


def test_a_debt_is_told_and_does_not_fail_the_run():
    rows = [row(KILLED), row(SURVIVED, id="n", open="needs rows that nobody draws")]
    assert status(rows) == 0
    assert "1 of 2 mutants killed (50.0%); 1 survive and should not (open)" in table.score(rows)
    page = table.markdown(rows, "python -m conformance.mutants", "default", 400, 30.0)
    assert "- `n`: needs rows that nobody draws." in page


def test_status_is_3_when_nothing_ran(capsys, tmp_path):
    assert status([]) == 3
    assert main(["--mutant", "no-such-mutant", "--records", str(tmp_path)]) == 3
    assert "no mutant fits these options" in capsys.readouterr().err


def test_where_no_fate_can_be_kept_nothing_is_built(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("conformance.mutants.__main__._prepare", None)
    (tmp_path / "file").write_text("")
    assert main(["--op", "append_kv", "--records", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith(f"mutants: --records {tmp_path}/file: nothing can")


def test_listing_runs_nothing(capsys):
    assert main(["--list", "--op", "append_kv"]) == 0
    assert "append-negative-slot-written" in capsys.readouterr().out
    assert main(["--list", "--op", "nothing"]) == 3


def test_wrong_usage_is_2():
    with pytest.raises(SystemExit) as exit_:
        main(["--jobs", "0"])
    assert exit_.value.code == 2


def test_without_build_tools_it_fails_and_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    assert main(["--selftest", "--records", str(tmp_path)]) == 1
    assert "cmake is not on PATH" in capsys.readouterr().err


def test_a_record_holds_what_reports_read():
    record = KILLED.record(row(KILLED).trial)
    wanted = {"mutant", "op", "kernel", "what", "source", "killed", "check", "cases", "seconds",
              "case", "reason"}  # fmt: skip
    assert wanted <= set(record)
    assert record["killed"] is True
    excused = row(SURVIVED, survives="needs 2^31 elements")
    assert excused.fate.record(excused.trial)["reason"] == "needs 2^31 elements"


def test_a_compile_command_gets_the_overlay_first_and_its_own_output(tmp_path):
    command = ["ccache", "c++", "-Icsrc", "-O2", "-o", "a.o", "-c", "a.cu"]
    changed = build._compile(command, tmp_path / "b.cu", tmp_path / "b.o", tmp_path)
    at = [f"-I{tmp_path}", "-Icsrc", "-O2", "-o", f"{tmp_path}/b.o", "-c", f"{tmp_path}/b.cu"]
    assert ["ccache", "c++", *at] == changed


def test_the_page_shows_kill_and_survivor():
    rows = [row(KILLED), row(SURVIVED, id="n", survives="needs 2^31 elements")]
    page = table.markdown(rows, "python -m conformance.mutants", "default", 400, 30.0)
    assert "| `m` | `simt.naive` | w | s | budget | 3 | `copy_blocks.Case()` |" in page
    assert "- `n`: needs 2^31 elements." in page
