"""Options, profiles and fixtures of the conformance suite."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, is_hypothesis_test, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from conformance.campaign import Campaign
from conformance.coverage import Coverage
from conformance.ending import Ending
from conformance.laws import CLASSES, Law
from conformance.profiles import PROFILES
from conformance.progress import Progress
from yaie import kernels
from yaie.check import Judge, choose_kernels
from yaie.command.arguments import make_folder
from yaie.op import Kernel, Op
from yaie.record import DEFAULT_FOLDER, Recorder, new_run_id
from yaie.statement import waivers

LEAST_JUDGED = 0.25
"""Share of them that must really be judged: a kernel that declines the rest has shown little."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption(
        "--profile",
        choices=PROFILES,
        default="default",
        help="how many cases a kernel: " + ", ".join(f"{k} {v}" for k, v in PROFILES.items()),
    )
    group.addoption("--op", default="*", metavar="GLOB", help="ops to judge (default: all)")
    group.addoption("--kernel", default="*", metavar="GLOB", help="kernels (default: all)")
    group.addoption(
        "--records",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="where records go (default: reports/records)",
    )


def pytest_configure(config: pytest.Config) -> None:
    kernels.load()
    torch.set_num_threads(1)  # cases are small, and test processes fill the cores
    _check_options(config)
    worker = getattr(config, "workerinput", None)
    config.yaie_run = worker["yaie_run"] if worker else new_run_id()  # type: ignore[attr-defined]
    _register_profiles()
    settings.load_profile(config.getoption("--profile"))
    try:
        config.yaie_waivers = waivers.load()  # type: ignore[attr-defined]
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    if worker is None:
        if kernels.native.extension("simt") is None:
            raise pytest.UsageError("the extension yaie._simt is not built: run `nox -s build`")
        config.pluginmanager.register(Progress(config), "yaie-progress")
        config.pluginmanager.register(Coverage(config), "yaie-coverage")
        ending = Ending(config, config.yaie_waivers)  # type: ignore[attr-defined]
        config.pluginmanager.register(ending, "yaie-ending")


def _check_options(config: pytest.Config) -> None:
    """A mistyped glob must not be green: something has to fit it, and to be able to run here. And
    what is found out must be kept."""
    glob = config.getoption("--kernel")
    try:
        fitting = choose_kernels(config.getoption("--op"), glob)
        make_folder("--records", config.getoption("--records"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    chosen = [(op, kernel) for op, kernel in fitting if _can_run(kernel)]
    if not chosen:
        raise pytest.UsageError(f"--kernel {glob}: these kernels need a GPU, there is none")
    config.yaie_kernels = chosen  # type: ignore[attr-defined]


def _register_profiles() -> None:
    in_ci = bool(os.environ.get("CI"))
    for name, examples in PROFILES.items():
        settings.register_profile(
            name,
            max_examples=examples,
            deadline=None,
            derandomize=in_ci,
            database=None if in_ci else DirectoryBasedExampleDatabase(".hypothesis/examples"),
            report_multiple_bugs=False,
            # `conforms` lives as long as its test, all examples of it: that is what is meant.
            # A kernel that declines much of the domain makes Hypothesis draw again.
            suppress_health_check=[
                HealthCheck.function_scoped_fixture,
                HealthCheck.too_slow,
                HealthCheck.filter_too_much,
            ],
        )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a pytest-xdist worker the run that it belongs to."""
    node.workerinput["yaie_run"] = node.config.yaie_run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument ``kernel`` runs once for each kernel of its op (of every op, in a
    module without OP) that --op and --kernel let through."""
    if "kernel" not in metafunc.fixturenames:
        return
    own: Op | None = getattr(metafunc.module, "OP", None)
    lawful = "law" in metafunc.fixturenames
    chosen = [
        pytest.param(op, kernel, id=f"{op.name}-{kernel.name}")
        for op, kernel in metafunc.config.yaie_kernels  # type: ignore[attr-defined]
        if own in (None, op) and (not lawful or _states_the_spec(kernel))
    ]
    metafunc.parametrize("op, kernel", chosen)


def pytest_collection_finish() -> None:
    """What is imported by now lives on: 5 % of a run went into walking it for garbage."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the tests of ops that --op and --kernel leave without a kernel."""
    empty = [item for item in items if "NOTSET" in item.name]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


def _can_run(kernel: Kernel) -> bool:
    """Kernels of a GPU are judged where there is one."""
    if kernel.device != "cuda":
        return True
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _states_the_spec(kernel: Kernel) -> bool:
    """Laws bind what others are judged by: plain Python that serves all calls and may run in a test
    process. A plugin's kernel is judged by these, whatever its name, however little it serves."""
    return kernel.name in ("reference", "torch.eager") or kernel.name.startswith("host.")


@pytest.fixture(scope="session")
def judge() -> Iterator[Judge]:
    """One judge, with its worker, for each test process."""
    with Judge() as judge:
        yield judge


@pytest.fixture(scope="session")
def recorder(pytestconfig: pytest.Config) -> Iterator[Recorder]:
    """The records file of this test process."""
    recorder = Recorder(
        pytestconfig.getoption("--records"),
        pytestconfig.yaie_run,  # type: ignore[attr-defined]
        pytestconfig.getoption("--profile"),
        os.environ.get("PYTEST_XDIST_WORKER", "main"),
    )
    yield recorder
    recorder.close()


@pytest.fixture
def conforms(
    judge: Judge,
    recorder: Recorder,
    op: Op,
    kernel: Kernel,
    request: pytest.FixtureRequest,
) -> Iterator[Campaign]:
    """Judges the test's kernel on a case and records the verdict. For a case that it declines,
    another is drawn; a kernel that was judged on too few has shown nothing, and fails."""
    waived = request.config.yaie_waivers  # type: ignore[attr-defined]
    campaign = Campaign(judge, op, kernel, recorder, waivers=waived)
    recorder.domain(op)
    yield campaign
    campaign.close()
    request.node.user_properties.append(("summary", campaign.summary))
    request.node.user_properties.append(("judged", campaign.judged))
    if not is_hypothesis_test(request.function):
        return
    wanted = PROFILES[request.config.getoption("--profile")] * LEAST_JUDGED
    if campaign.judged < wanted and campaign.fault is None:
        pytest.fail(
            f"{op.name}: {kernel.name} was judged on {campaign.judged} cases and declined "
            f"{campaign.declined}; a pass needs {wanted:.0f} judged cases"
        )


@pytest.fixture
def law(
    recorder: Recorder, op: Op, kernel: Kernel, request: pytest.FixtureRequest
) -> Iterator[Law]:
    """States one law (mark ``law``), or agreement with a peer (mark ``peer``), and records it."""
    marks = [m for m in request.node.iter_markers() if m.name in ("law", "peer")]
    assert len(marks) == 1, "a law is marked law(class) or peer(name)"
    assert marks[0].name == "peer" or marks[0].args[0] in CLASSES
    law = Law(op, kernel)
    yield law
    if getattr(request.node, "outcome", None) == "skipped":
        return
    assert law.comparisons, "the law compared nothing"
    name = request.node.originalname.removeprefix("test_").replace("_", " ")
    outcome = {
        "class": marks[0].args[0] if marks[0].name == "law" else None,
        "peer": marks[0].args[0] if marks[0].name == "peer" else None,
        "calls": law.calls,
        "worst": law.worst,
        "ok": getattr(request.node, "outcome", None) == "passed",
    }
    recorder.law(op.name, kernel.name, name, outcome)
    request.node.user_properties.append(("summary", f"{law.calls} calls"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Let fixtures know what came of their test."""
    report = yield
    if report.when == "call":
        item.outcome = report.outcome  # type: ignore[attr-defined]
    return report
