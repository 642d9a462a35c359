"""The developer's menu: `nox -l` lists it, `nox -s NAME -- ARGUMENTS` runs one entry.

Every entry works from a clean clone with Python and a C++ compiler, and as
`nox --no-venv --no-install -s NAME` inside an image that has torch: then the extension is built
into build/ with the image's own cmake, and site-packages stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2026.2"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).resolve().parent
WHEELS = ROOT / "build" / "wheels"
WHEELS_KEPT = 5
CONSTRAINTS = ROOT / "constraints.txt"
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
shared_environment: Path | None = None
"""Of the session env, once it has run: those that require it have no environment of their own, for
this one takes minutes to install and 2 GB."""


# Sessions ------------------------------------------------------------------------------------


@nox.session(requires=["env"], venv_backend="none")
def conformance(session: nox.Session) -> None:
    """Judge the kernels [-- --kernel GLOB --op GLOB --profile quick|default|deep]."""
    paths = () if any(a.startswith("conformance") for a in session.posargs) else ("conformance",)
    parallel = ("-n", "auto", "--dist", "worksteal", "-p", "no:benchmark")
    command = (python(session), "-m", "pytest", *paths, *parallel)
    session.run(*command, *session.posargs, env=native(session))


@nox.session(requires=["env"], venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the harness's own unit tests [-- pytest arguments]."""
    parallel = ("-n", "auto", "--dist", "worksteal")
    command = (python(session), "-m", "pytest", *parallel, *session.posargs)
    session.run(*command, env=native(session))


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the extension once for all sessions (YAIE_CUDA=ON|OFF overrides the detection)."""
    if in_image(session):
        build_in_place(session)
    else:
        build_wheel(session, f"{sys.version_info.major}.{sys.version_info.minor}")


@nox.session(default=False, requires=["build"])
def env(session: nox.Session) -> None:
    """Install what the sessions that run yaie share, and let them use it."""
    install(session, "test", "build")
    if not in_image(session):
        global shared_environment
        shared_environment = Path(session.virtualenv.location).resolve()
        os.environ["VIRTUAL_ENV"] = str(shared_environment)
        os.environ["PATH"] = os.pathsep.join([str(shared_environment / "bin"), os.environ["PATH"]])


@nox.session(default=False, requires=["env"], venv_backend="none")
def mutants(session: nox.Session) -> None:
    """Plant known defects into the kernels and show that each is caught."""
    command = (python(session), "-m", "conformance.mutants")
    session.run(*command, *session.posargs, env=native(session))


@nox.session(default=False, requires=["env"], venv_backend="none")
def sanitize(session: nox.Session) -> None:
    """Judge the executor's kernels with every memory access checked [-- conformance's options].

    Then the executor's own tests and all kernels run under AddressSanitizer, each a process of its
    own.
    """
    env = {"YAIE_EXTENSIONS": str(build_checked(session))}
    parallel = ("-n", "auto", "--dist", "worksteal", "-p", "no:benchmark")
    pytest = (python(session), "-m", "pytest", *parallel)
    options = session.posargs or ("--profile", "quick")
    session.run(*pytest, "conformance", "--kernel", "simt.*", *options, env=env)
    session.run(*pytest, "tests/test_extension.py", env=env)
    addresses = ROOT / "build" / "simt-tests-addresses"
    flags = "-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined -fno-sanitize-recover=undefined"
    configure(session, "csrc/simt", addresses, flags)
    session.run("cmake", "--build", str(addresses), env=build_env())
    session.run("ctest", "--test-dir", str(addresses / "tests"), "--output-on-failure")
    env = {"YAIE_EXTENSIONS": str(build_with_addresses(session)), **addresses_runtime(session)}
    session.run(python(session), "-m", "conformance.addresses", env=env)


@nox.session(default=False)
def compile(session: nox.Session) -> None:
    """Compile every kernel with nvcc, no GPU needed; table of registers, spills and memory."""
    if not find_nvcc():
        install(session, "nvcc", wheel=False)
    session.run(python(session), "benchmarks/compile_table.py", *session.posargs)


@nox.session(default=False, requires=["env"], venv_backend="none")
def bench(session: nox.Session) -> None:
    """Judge and time the kernels, and report [-- --op GLOB --kernel GLOB --budget SECONDS]."""
    command = (python(session), "-m", "benchmarks")
    session.run(*command, *session.posargs, env=native(session))


@nox.session(default=False, requires=["env"], venv_backend="none")
def gate(session: nox.Session) -> None:
    """Judge this change against its base [-- --base origin/main --require-speed | --selftest].

    Exit status 1: regression, 3: something could not be judged (nox itself knows 1 alone).
    """
    if not find_nvcc() and not in_image(session):
        nvcc = nox.project.dependency_groups(PYPROJECT, "nvcc")
        pip = ("python", "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS))
        session.run_install(*pip, *nvcc)
    status = Path(session.create_tmp()) / "status"
    status.unlink(missing_ok=True)
    env = {"YAIE_GATE_STATUS": str(status.resolve())}
    command = (python(session), "-m", "benchmarks.gate", *session.posargs)
    session.run(*command, env=env, success_codes=[0, 3])
    if status.exists() and status.read_text() == "3":
        sys.exit(3)


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Turn the records into offline HTML pages and Markdown summaries; needs no compiler."""
    install(session, "report", wheel=False)
    session.run(python(session), "-m", "reports", *session.posargs)
    if not session.posargs and Path("reports/timings").is_dir():
        session.run(python(session), "-m", "reports.bench")


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check style: ruff, clang-format, workflow files [-- --fix rewrites what can be]."""
    install(session, "lint", wheel=False)
    fix = "--fix" in session.posargs
    sources = [str(p.relative_to(ROOT)) for p in tree("csrc") if p.suffix in CXX_SUFFIXES]
    workflows = sorted(map(str, Path(".github/workflows").glob("*.yml")))
    commands = (
        ("ruff", "check", *(["--fix"] if fix else [])),
        ("ruff", "format", *([] if fix else ["--check"])),
        ("clang-format", *(["-i"] if fix else ["--dry-run", "--Werror"]), *sources),
        ("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows),
        ("actionlint", "-no-color"),  # with shellcheck, which is installed beside it
        ("zizmor", "--offline", "--quiet", "--no-progress", *workflows),  # what a fork could abuse
    )
    failed = []
    for command in commands:
        try:
            session.run(*command, log=False)
        except nox.command.CommandFailed:
            failed.append(command[0])
    if failed:
        session.error("failed: " + ", ".join(failed))


@nox.session(default=False)
def types(session: nox.Session) -> None:
    """Check the types of yaie with mypy, strict."""
    install(session, "types", wheel=False)
    session.run("mypy", *session.posargs)


@nox.session(name="build-py", default=False, python=[v for v in PYTHONS if v != "3.11"])
def build_py(session: nox.Session) -> None:
    """Build the extension for another Python and import it there, without torch."""
    wheel = build_wheel(session, str(session.python))
    session.install("--no-deps", "--force-reinstall", str(wheel))
    # The module itself, not the package around it: that one imports torch.
    check = (
        "import sysconfig, sys; sys.path.insert(0, sysconfig.get_path('platlib') + '/yaie'); "
        "import _simt; print(sys.version.split()[0], _simt.__file__, _simt.build_id)"
    )
    session.run("python", "-c", check)


@nox.session(default=False)
def pins(session: nox.Session) -> None:
    """Rewrite constraints.txt: what the dependency groups resolve to today."""
    reports = {version: resolve(session, version) for version in PYTHONS}
    head = (
        "# Exact versions of all that the nox sessions install. Made by `nox -s pins`.",
        "# Tested on Python 3.11; the lines for the other versions are what pip resolves there.",
    )
    CONSTRAINTS.write_text("\n".join((*head, *merge_pins(reports))) + "\n")


# The wheel and the in-place build ------------------------------------------------------------

CXX_SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
BUILD_INPUTS = ("CMakeLists.txt", "LICENSE", "cmake", "csrc", "pyproject.toml", "yaie")


def in_image(session: nox.Session) -> bool:
    """Whether nox runs in an image that has all (`nox --no-venv`)."""
    return session.venv_backend == "none" and shared_environment is None


def python(session: nox.Session) -> str:
    """The session's interpreter; in an image, the one that `python3` means there."""
    return (shutil.which("python3") or sys.executable) if in_image(session) else "python"


def tree(*names: str) -> list[Path]:
    """The source files under these names, sorted."""
    found: list[Path] = []
    for name in names:
        path = ROOT / name
        found += [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sorted(p for p in found if p.suffix not in {".pyc", ".so"})


def digest(*parts: str, files: tuple[str, ...] = ()) -> str:
    """A short hash of strings and of the contents of files and folders."""
    total = hashlib.sha256("\0".join(parts).encode())
    for path in tree(*files):
        total.update(f"\0{path.relative_to(ROOT)}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def find_nvcc() -> str | None:
    """nvcc of the system: on PATH, or under CUDA_HOME."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc") or (shutil.which("nvcc", path=f"{home}/bin") if home else None)


def build_env() -> dict[str, str]:
    """Environment of a build: which faces, how many jobs."""
    cuda = os.environ.get("YAIE_CUDA", "AUTO").upper()
    if cuda == "AUTO":
        gpu = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
        cuda = "ON" if gpu and find_nvcc() else "OFF"
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0))))
    return {"YAIE_CUDA": cuda, "CMAKE_BUILD_PARALLEL_LEVEL": jobs}


def build_digest(python: str) -> str:
    """Names one build: its sources, its Python, its compilers' settings."""
    settings = {k: os.environ.get(k) for k in ("CC", "CXX", "CXXFLAGS", "CUDACXX", "CUDAFLAGS")}
    settings["YAIE_CUDA"] = build_env()["YAIE_CUDA"]
    settings["YAIE_CUDA_ARCHS"] = os.environ.get("YAIE_CUDA_ARCHS")
    return digest(python, platform.machine(), json.dumps(settings), files=BUILD_INPUTS)


def find_wheel(python: str) -> Path | None:
    """The wheel of the present sources, if it was built."""
    return next((WHEELS / build_digest(python)).glob("yaie-*.whl"), None)


def build_wheel(session: nox.Session, python: str) -> Path:
    """The wheel of the present sources; built if there is none. Objects are kept in build/."""
    wheel = find_wheel(python)
    if wheel is None:
        install(session, "build", wheel=False)
        folder = WHEELS / build_digest(python)
        command = ("python", "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
        session.run(*command, "--wheel-dir", str(folder), ".", env=build_env())
        wheel = next(folder.glob("yaie-*.whl"))
        for old in sorted(WHEELS.iterdir(), key=lambda p: p.stat().st_mtime)[:-WHEELS_KEPT]:
            shutil.rmtree(old)
    session.log(f"wheel: {wheel.relative_to(ROOT)}")
    return wheel


def in_place_folder() -> Path:
    """Where `nox --no-venv` builds; the extensions go to its subfolder site/yaie."""
    return ROOT / "build" / f"in-place-{sys.implementation.cache_tag}-{platform.machine()}"


def build_in_place(session: nox.Session) -> None:
    """Build the extension with the image's cmake (ninja, if it is there) into build/."""
    folder, env = in_place_folder(), build_env()
    options = [f"-DPython_EXECUTABLE={python(session)}", f"-DYAIE_CUDA={env['YAIE_CUDA']}"]
    options.append(f"-DYAIE_CUDA_ARCHS={os.environ.get('YAIE_CUDA_ARCHS', '')}")
    if shutil.which("ninja"):
        options.append("-GNinja")
    session.run("cmake", "-S", ".", "-B", str(folder), *options, silent=True)
    session.run("cmake", "--build", str(folder), env=env)
    shutil.rmtree(folder / "site", ignore_errors=True)
    session.run("cmake", "--install", str(folder), "--prefix", str(folder / "site"), silent=True)


def configure(session: nox.Session, source: str, folder: Path, *options: str) -> None:
    """Configure a build for this session's Python, with ninja if it is there."""
    generator = ("-GNinja",) if shutil.which("ninja") or not in_image(session) else ()
    executable = session.run(
        python(session), "-c", "import sys; print(sys.executable)", silent=True, log=False
    )
    options = (f"-DPython_EXECUTABLE={str(executable).strip()}", *options, *generator)
    session.run("cmake", "-S", source, "-B", str(folder), *options, silent=True)


def build_checked(session: nox.Session) -> Path:
    """Build yaie/_simt so that it checks every access; the folder that holds it."""
    folder = ROOT / "build" / f"checked-{sys.implementation.cache_tag}-{platform.machine()}"
    configure(session, ".", folder, "-DYAIE_CUDA=OFF", "-DYAIE_SIMT_CHECKED=ON")
    session.run("cmake", "--build", str(folder), "--target", "_simt", env=build_env())
    return folder / "cmake" / "simt"


def build_with_addresses(session: nox.Session) -> Path:
    """Build yaie/_simt with AddressSanitizer; the folder that holds it."""
    folder = ROOT / "build" / f"addresses-{sys.implementation.cache_tag}-{platform.machine()}"
    configure(session, ".", folder, "-DYAIE_CUDA=OFF", "-DCMAKE_CXX_FLAGS=-fsanitize=address")
    session.run("cmake", "--build", str(folder), "--target", "_simt", env=build_env())
    return folder / "cmake" / "simt"


def addresses_runtime(session: nox.Session) -> dict[str, str]:
    """Environment in which Python can load such a build. The runtime must come first in a process,
    and intercepts of libstdc++ what is there when it starts."""
    query = (os.environ.get("CXX", "c++"), "-print-file-name=libasan.so")
    runtime = str(session.run(*query, silent=True, log=False)).strip()
    return {"LD_PRELOAD": f"{runtime}:libstdc++.so.6", "ASAN_OPTIONS": "detect_leaks=0"}


def native(session: nox.Session) -> dict[str, str]:
    """Environment that shows yaie its compiled faces: the package in the checkout has none. An
    image may lack what the tests compare with (conformance/peers.py)."""
    peers = {"YAIE_PEERS": "optional"} if in_image(session) else {}
    if "YAIE_EXTENSIONS" in os.environ:
        return peers  # the caller's own build
    if in_image(session):
        return {"YAIE_EXTENSIONS": str(in_place_folder() / "site" / "yaie"), **peers}
    assert shared_environment, "the session requires env"
    installed = shared_environment.glob("lib/python*/site-packages/yaie")
    return {"YAIE_EXTENSIONS": str(next(installed))}


# Installation --------------------------------------------------------------------------------


def install(session: nox.Session, *groups: str, wheel: bool = True) -> None:
    """Install dependency groups, pinned, and the wheel; nothing where nothing changed."""
    if in_image(session):
        return
    stamp = Path(session.virtualenv.location) / "yaie-installed.json"
    have = json.loads(stamp.read_text()) if stamp.exists() else {}
    requirements = nox.project.dependency_groups(PYPROJECT, *groups)
    want = {"groups": digest(*requirements, files=("constraints.txt",)), "wheel": None}
    pip = ("python", "-m", "pip", "install", "--quiet", "--no-compile")  # most is never imported

    if have.get("groups") != want["groups"]:
        pinned = (*pip, "--constraint", str(CONSTRAINTS), *requirements)
        if session.run_install(*pinned) is None:
            return  # --no-install: leave the environment, and its stamp, alone
        stamp.write_text(json.dumps(want))
        have = dict(want)
    if wheel:
        path = find_wheel(f"{sys.version_info.major}.{sys.version_info.minor}")
        want["wheel"] = path.parent.name if path else session.error("run `nox -s build` first")
        if have.get("wheel") != want["wheel"]:
            if session.run_install(*pip, "--no-deps", "--force-reinstall", str(path)) is None:
                return
            stamp.write_text(json.dumps(want))


# Pins ----------------------------------------------------------------------------------------

TORCH = "2.13.0"
# What torch needs besides the CUDA libraries, whose exact versions its own metadata names.
TORCH_NEEDS = ("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy")
# The tags that wheels for common Linux machines carry.
GLIBC = ("1", "2010", "2014", *(f"_2_{n}" for n in (5, 12, 17, 24, 27, 28)))


def resolve(session: nox.Session, python: str) -> dict[str, str]:
    """Name → version of all that the dependency groups need under this Python."""
    groups = nox.project.dependency_groups(PYPROJECT, *PYPROJECT["dependency-groups"])
    requirements = [r for r in groups if not r.startswith("torch")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:"]
        options += [f"--platform=manylinux{n}_{platform.machine()}" for n in GLIBC]
        options += [f"--python-version={python}.20", f"--target={folder}", f"--report={report}"]
        session.run("python", "-m", "pip", "install", *options, *requirements, *TORCH_NEEDS)
        found = [i["metadata"] for i in json.loads(report.read_text())["install"]]
    pins = {m["name"].lower().replace("_", "-"): m["version"] for m in found}
    return {**pins, "torch": TORCH}


def merge_pins(reports: dict[str, dict[str, str]]) -> list[str]:
    """Lines of a constraints file; a marker where versions differ between Pythons."""
    lines = []
    for name in sorted({name for report in reports.values() for name in report}):
        versions: dict[str, list[str]] = {}
        for python, report in reports.items():
            if name in report:
                versions.setdefault(report[name], []).append(python)
        for version, pythons in versions.items():
            markers = " or ".join(f'python_version == "{p}"' for p in pythons)
            lines.append(f"{name}=={version}" + (f" ; {markers}" if len(versions) > 1 else ""))
    return lines


if __name__ == "__main__":
    nox.main()
