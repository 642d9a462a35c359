"""The command line: what it prints, and the status that it ends with."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from contextlib import nullcontext
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PLUGIN

from yaie import ops, pages
from yaie.check import Judge, choose_kernels
from yaie.cli import main
from yaie.command import errors
from yaie.op import Kernel


@pytest.fixture(autouse=True)
def quick(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command uses the judge of the session, which knows the bad kernels."""
    monkeypatch.setattr("yaie.cli.Judge", lambda: nullcontext(judge))


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


# ops -----------------------------------------------------------------------------------------


def test_ops_lists_every_op_with_its_meaning_and_kernels(capsys: Any) -> None:
    status, out, _ = run(capsys, "ops")
    assert 0 == status
    lines = out.splitlines()
    for op in ops.OPS.values():
        at = next(i for i, line in enumerate(lines) if line.startswith(op.name))
        assert len(lines[at].split(maxsplit=1)[1]) > 20
        assert [f"kernels: {', '.join(op.kernels)}"] == [lines[at + 1].strip()]


def test_ops_prints_the_page_of_one(capsys: Any) -> None:
    status, out, _ = run(capsys, "ops", "append_kv")
    op = ops.get("append_kv")
    assert 0 == status
    assert out.startswith(op.doc.strip())
    for words in (op.signature.text, *op.kernels, *op.workloads, *op.edges):
        assert words in out


@pytest.mark.parametrize("name", list(ops.OPS))
def test_a_page_can_be_read(name: str) -> None:
    """A workload of a thousand numbers is told in a line or two."""
    assert max(len(line) for line in pages.text(ops.get(name)).splitlines()) < 600


def test_a_case_for_readers_names_equal_parts_once_and_the_first_alone() -> None:
    case = ops.gather_slots.Case(lens=(5, *[7] * 300, *range(10, 20)), S=16)
    lens = "(5, 7 × 300, 10, 11, 12, 13, 14, 15, … 311 in all)"
    assert f"gather_slots.Case(lens={lens}, S=16)" == pages.told(case)
    case = ops.gather_slots.Case(lens=(3,), S=8)
    assert repr(case) == pages.told(case)


LISTS = {"kernels", "edges", "errors", "workloads"}


def test_ops_as_json(capsys: Any) -> None:
    status, out, _ = run(capsys, "ops", "--json")
    listed = json.loads(out)
    assert 0 == status
    assert list(ops.OPS) == [entry["name"] for entry in listed]
    assert 18 <= len(listed)
    for entry in listed:
        assert {"name", "meaning", "signature", *LISTS} == set(entry)
        assert all(entry[name] for name in LISTS), entry["name"]
        opinions = [k for k in entry["kernels"] if k.startswith(("reference", "torch.", "host."))]
        assert 2 <= len(opinions), entry["name"]


def test_an_unknown_op_is_a_usage_error_with_the_nearest_name(capsys: Any) -> None:
    status, out, err = run(capsys, "ops", "apend_kv")
    assert (2, "") == (status, out)
    assert "yaie: no op 'apend_kv'; did you mean append_kv?" in err


# check ---------------------------------------------------------------------------------------


def test_check_prints_a_row_for_every_kernel_that_passes(capsys: Any) -> None:
    status, out, _ = run(
        capsys, "check", "--op", "append_kv", "--kernel", "torch.eager", "--seeds", "1"
    )
    refusals = len(ops.get("append_kv").refusals)
    assert 0 == status
    assert f"3 of 3 cases pass, {refusals} of {refusals} bad inputs refused" in out
    assert out.startswith("ok")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_kernel_of_a_gpu_is_not_checked_without_one(capsys: Any) -> None:
    op = ops.get("append_kv")
    op.register(Kernel("append_kv", "far.away", op.reference, device="cuda"))
    try:
        assert {k.name for _, k in choose_kernels("append_kv", "*")}.isdisjoint({"far.away"})
        status, _, err = run(capsys, "check", "--op", "append_kv", "--kernel", "far.*")
    finally:
        del op.kernels["far.away"]
    assert status == 2
    assert "far.away runs on a GPU, and there is none" in err


def test_check_of_a_bad_kernel_fails_and_shows_how_to_see_it_again(
    capsys: Any,
) -> None:
    status, out, _ = run(capsys, "check", "--kernel", "bad.lse_base_2", "--seeds", "1")
    assert 1 == status
    assert out.startswith("FAIL")
    assert "--kernel bad.lse_base_2" in out
    assert 'reproduce: yaie repro "paged_attention.Case(' in out


def test_check_that_judges_nothing_says_so(capsys: Any) -> None:
    """A kernel that declines every case has shown nothing: as in conformance, no success."""
    status, _, _ = run(capsys, "check", "--kernel", "bad.declines", "--seeds", "1")
    assert 3 == status


@pytest.mark.parametrize("seeds", ["0", "-1", "x", "1.5"])
def test_check_of_no_cases_is_a_usage_error(capsys: Any, seeds: str) -> None:
    arguments = ("--op", "append_kv", "--kernel", "torch.eager", "--seeds", seeds)
    with pytest.raises(SystemExit) as ended:
        main(["check", *arguments])
    assert 2 == ended.value.code
    assert f"--seeds: is '{seeds}', must be a whole number from 1 on" in capsys.readouterr().err


def test_check_of_an_unknown_kernel_is_a_usage_error(capsys: Any) -> None:
    status, _, err = run(capsys, "check", "--kernel", "nobody.*")
    assert 2 == status
    assert "no kernel fits --kernel nobody.*" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--op", "apend*"), "no op fits --op apend*; did you mean append_kv?"),
        (("--op", "rope", "--kernel", "simt.nave"), "simt.nave; did you mean simt.naive?"),
    ],
)
def test_a_mistyped_glob_is_answered_with_the_nearest(
    capsys: Any, options: tuple[str, ...], words: str
) -> None:
    status, _, err = run(capsys, "check", *options)
    assert 2 == status
    assert words in err


def test_kernels_that_are_not_built_are_no_typing_error() -> None:
    done = without_extension("check", "--kernel", "simt.*")
    assert "yaie: the extension yaie._simt is not built: run `nox -s build`\n" == done.stderr
    assert 2 == done.returncode


WITHOUT_EXTENSION = """
import sys
sys.modules["yaie._simt"] = None  # no module of that name is found
from yaie.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_extension(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "YAIE_EXTENSIONS"}
    command = [sys.executable, "-c", WITHOUT_EXTENSION, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


# repro ---------------------------------------------------------------------------------------


def test_repro_of_a_pass_shows_what_came_closest(capsys: Any) -> None:
    case = "paged_attention.Case(q_lens=(2,), kv_lens=(9,))"
    status, out, _ = run(capsys, "repro", case, "--kernel", "torch.eager")
    assert 0 == status
    assert f"pass: paged_attention torch.eager {case}" in out
    assert "of the budget used (mostly: " in out


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("bad.lse_base_2", "fails the check 'budget'"),
        ("bad.abort", "ends in a crash"),
        ("bad.raises", "fails the check 'error'"),
    ],
)
def test_repro_of_a_fault_ends_with_1(capsys: Any, kernel: str, words: str) -> None:
    case = "paged_attention.Case(kv_lens=(7,))"
    status, out, _ = run(capsys, "repro", case, "--kernel", kernel)
    assert 1 == status
    assert words in out
    assert f"case:      {case}" in out
    assert f'reproduce: yaie repro "{case}" --kernel {kernel}' in out


def test_repro_of_a_case_that_the_kernel_declines_ends_with_3(capsys: Any) -> None:
    status, out, _ = run(capsys, "repro", "paged_attention.Case()", "--kernel", "bad.declines")
    assert (3, "bad.declines declines this case: serves nothing at all\n") == (status, out)


@pytest.mark.parametrize(
    "case",
    [
        "",
        "nonsense",
        "append_kv",
        "append_kv.Case(",
        "append_kv.Case(T=x)",
        "append_kv.Case(tokens=3)",
        "apend_kv.Case()",
        "append_kv.Case(T='3')",
        "append_kv.Case(T=13)",
        "append_kv.Case(dtype='float13')",
        "append_kv.Case(layout='diagonal')",
        "paged_attention.Case(family='nomal')",
        "paged_attention.Case(q_lens=1)",
        "paged_attention.Case(S=0)",
        "copy_blocks.Case(P=20000000, page=(16, 64, 256))",
    ],
)
def test_repro_of_what_is_no_case_is_a_usage_error(capsys: Any, case: str) -> None:
    """Status 1 would say that the kernel is at fault."""
    status, _, err = run(capsys, "repro", case, "--kernel", "torch.eager")
    assert 2 == status
    assert err.startswith("yaie: ")


def test_repro_with_an_unknown_kernel_is_a_usage_error(capsys: Any) -> None:
    status, _, err = run(capsys, "repro", "append_kv.Case()", "--kernel", "torch.eagre")
    assert 2 == status
    assert "no kernel 'torch.eagre'; did you mean torch.eager?" in err


# The environment -----------------------------------------------------------------------------


def command(environment: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, **environment}
    start = [sys.executable, "-m", "yaie.cli"]
    return subprocess.run([*start, *argv], env=given, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"YAIE_KERNEL": "rope=simt.nave"}, "YAIE_KERNEL: 'rope=simt.nave': no kernel 'simt.nave'"),
        ({"YAIE_PLUGINS": "no_such_plugin"}, "YAIE_PLUGINS: no module 'no_such_plugin'"),
        ({"YAIE_CHECKED": "false"}, "YAIE_CHECKED is 'false', must be 0 (off) or 1 (on)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistyped_variable_is_a_usage_error(environment: dict[str, str], words: str) -> None:
    done = command(environment, "ops")
    assert (2, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
    assert done.stderr.startswith(f"yaie: {words}")


def half_linked(folder: Path) -> dict[str, str]:
    (folder / f"_simt{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    return {"YAIE_EXTENSIONS": str(folder)}


def test_a_half_linked_extension_is_to_be_built_again(tmp_path: Path) -> None:
    done = command(half_linked(tmp_path), "ops")
    assert (2, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
    assert done.stderr.startswith("yaie: the extension yaie._simt cannot be loaded (")
    assert done.stderr.endswith("file too short); rebuild: nox -s build\n")


def test_a_program_that_imports_yaie_gets_the_error(tmp_path: Path) -> None:
    environment = {**os.environ, **half_linked(tmp_path)}
    program = "try:\n import yaie\nexcept ImportError as error:\n print(error)"
    start = [sys.executable, "-c", program]
    done = subprocess.run(start, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("rebuild: nox -s build\n")


@pytest.mark.parametrize(
    ("name", "arguments", "is_it"),
    [
        ("/usr/bin/yaie", ["/usr/bin/python", "/usr/bin/yaie", "ops"], True),
        ("-m", ["python", "-X", "dev", "-m", "yaie.cli", "ops"], True),
        ("-m", ["python", "-m", "pytest", "yaie.cli"], False),
        ("-c", ["python", "-c", "import yaie"], False),
        ("/usr/bin/pytest", ["python", "/usr/bin/pytest", "-m"], False),
    ],
)
def test_who_is_the_command(
    name: str, arguments: list[str], is_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setattr(sys, "orig_argv", arguments)
    assert is_it == errors._is_the_command()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no op"), "no op"),
        (
            FileNotFoundError(2, "No such file or directory", "a/b"),
            "a/b: No such file or directory",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "there is not enough memory"),
        (
            RuntimeError("CUDA out of memory. Tried"),
            "there is not enough memory: CUDA out of memory",
        ),
        (RuntimeError("shapes differ"), None),
        (KeyError("a"), None),
        (AssertionError(), None),
    ],
)
def test_errors_of_the_input_or_the_machine_are_told(error: Exception, said: str | None) -> None:
    told = errors.sentence(error)
    assert told is None if said is None else told is not None and told.startswith(said)


@pytest.mark.parametrize("argv", [[], ["chekc"], ["repro", "append_kv.Case()"], ["check", "-x"]])
def test_wrong_usage_ends_with_2(argv: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert 2 == ended.value.code


def test_the_printed_line_works_in_a_shell(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes and brackets of a Case survive: what a failure prints can be pasted."""
    for name, value in PLUGIN.items():
        monkeypatch.setenv(name, value)
    case = "append_kv.Case(T=3, dtype='bfloat16', layout='fused')"
    _, out, _ = run(capsys, "repro", case, "--kernel", "bad.append_forgets_the_last_token")
    line = next(row for row in out.splitlines() if "reproduce:" in row).partition(": ")[2].strip()
    command = shlex.split(line)
    assert ["yaie", "repro", case, "--kernel", "bad.append_forgets_the_last_token"] == command
    done = subprocess.run(
        [sys.executable, "-m", "yaie.cli", *command[1:]], capture_output=True, text=True
    )
    assert 1 == done.returncode
    assert "fails the check 'exact'" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "yaie.cli", "ops", "paged_attention"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"" == process.stderr.read()
    assert 1 == process.returncode
