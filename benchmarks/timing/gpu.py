"""Timing on a GPU: the few things that need one. The rules are in benchmarks/clock.py.

Two ways to time, both by CUDA events:

- *graph*: the calls of the whole rotation are captured once and replayed, so neither Python nor
  launch latency is in the figure; for kernels below a millisecond.
- *stream*: the stream is held by a spinning kernel until the host has enqueued everything, each
  call between two events of its own; for long kernels, and for those that cannot be captured.
  Whether the stream was really still held is checked, and recorded when it was not.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.clock import Call, Method, Pace, copied
from yaie.engine.graphs import recording

EVENT_STEP = 0.5e-6
"""What CUDA events resolve, in seconds."""
GRAPH_BELOW = 1e-3
"""Kernels shorter than this are timed inside a graph."""
GRAPH_SECONDS = 5e-3
"""How long a graph is at least: what its first kernels take longer, after the device was idle, is
then 0.3 % of it at most, where it is 1.2 % of half a millisecond (docs/bench.md)."""
CALLS_OF_ESTIMATE = 5
BURSTS_OF_ESTIMATE = 3
SPIN_CYCLES = 2_000_000  # about a millisecond
SPIN_CYCLES_MOST = 128_000_000
FLOOR_NODES = 1000


class Gpu:
    """The current CUDA device."""

    name = "cuda"

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self.device = f"{properties.name}, {properties.uuid}"
        """Which GPU of all this is."""
        self.cache_bytes = int(properties.L2_cache_size)
        self.pace = Pace(step=EVENT_STEP, burst=5e-3, gap=5e-3, warm_up=20e-3)
        self._sensors = sensors()

    def estimate(self, calls: Sequence[Call]) -> float:
        """The median call of a burst, after one call that may load and compile: of the first burst
        that the stream was held for, if that is one of three. A call much longer than a graph is
        for is timed one by one in any case, and the first burst will do."""
        calls[0]()
        torch.cuda.synchronize()
        stream = Stream([calls[i % len(calls)] for i in range(CALLS_OF_ESTIMATE)])
        for _ in range(BURSTS_OF_ESTIMATE):
            dry, typical = stream.ran_dry, stream.typical()
            if stream.ran_dry == dry or typical > 10 * GRAPH_BELOW:
                break
        return typical

    def method(self, calls: Sequence[Call], estimate: float) -> Method:
        """A graph where the kernel is short and can be captured, else the stream."""
        if estimate < GRAPH_BELOW:
            try:
                return Graph(calls, estimate)
            except RuntimeError:  # it synchronises, or allocates what a capture may not
                torch.cuda.synchronize()
        return Stream(calls)

    def synchronize(self) -> None:
        """Wait for the device, and take back what a kernel had pinned in its cache."""
        torch.cuda.synchronize()
        _reset_persisting_cache()

    def release(self) -> None:
        """What torch keeps for later, another process cannot have."""
        torch.cuda.empty_cache()

    def lost(self) -> bool:
        """Whether a kernel has broken this process's access to the device, for good."""
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return True
        return False

    def conditions(self) -> dict[str, float]:
        """Clocks in MHz, temperature, power, and the reasons for low clocks as bits."""
        return self._sensors()


class Stream:
    """Each call between two events, on a stream that waits for the host."""

    name = "events, stream held"
    can_remember = True

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._next = 0
        self._cycles = SPIN_CYCLES
        self.ran_dry = 0
        """Bursts whose figures may hold time of the host."""
        self._bursts = 0

    def whole(self, calls: int) -> int:
        """At most one call on each copy, as on the CPU."""
        return min(calls, len(self._calls))

    def sample(self, calls: int) -> float:
        """The mean of calls between events of their own."""
        turn = [self._calls[(self._next + i) % len(self._calls)] for i in range(calls)]
        self._next += calls
        return statistics.fmean(self._run(turn, keep=False)[0])

    def typical(self) -> float:
        """The median of the calls, each once."""
        return statistics.median(self._run(self._calls, keep=False)[0])

    def once(self) -> tuple[float, list[Any]]:
        """Each call once, its results copied on the same stream before anything is waited for. The
        stream is held for one call at a time: of several calls of hundreds of launches, the later
        ones do not fit into its queue, and would wait for the host."""
        passes = [self._run([call], keep=True) for call in self._calls]
        seconds = statistics.fmean(elapsed for (elapsed,), _ in passes)
        return seconds, [result for _, (result,) in passes]

    def _run(self, turn: Sequence[Call], keep: bool) -> tuple[list[float], list[Any]]:
        self._bursts += 1
        events = [(_event(), _event()) for _ in turn]
        results = []
        if self._cycles:
            torch.cuda._sleep(self._cycles)
        for (start, end), call in zip(events, turn, strict=True):
            start.record()
            returned = call()
            end.record()
            results.append(copied(returned) if keep else None)
        waited = self._cycles > 0 and not events[0][0].query()
        if not waited:  # the device did not wait for the host, whose time is in the figures
            self.ran_dry += 1
            self._hold_longer()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in events], results

    def _hold_longer(self) -> None:
        """Twice as long; but not at all once the longest was too short: such a call waits for the
        device itself, and would wait for the spinning kernel too."""
        if self._cycles < SPIN_CYCLES_MOST:
            self._cycles *= 2
        else:
            self._cycles = 0

    def notes(self) -> dict[str, Any]:
        """How many bursts may hold host time."""
        return {"bursts_not_held": self.ran_dry, "bursts_run": self._bursts}


@dataclass(frozen=True)
class Captured:
    """A graph between two events. The events are part of it, so that the time from its launch to
    its first kernel (8 to 9 µs on an H100) is in no figure. ``results`` live in its memory."""

    graph: torch.cuda.CUDAGraph
    start: torch.cuda.Event
    end: torch.cuda.Event
    results: list[Any]

    def replay(self, then: Callable[[], None] = lambda: None) -> float:
        """Seconds of a replay; ``then`` may enqueue more behind it."""
        self.graph.replay()
        then()
        torch.cuda.synchronize()
        return self.start.elapsed_time(self.end) / 1e3


class Graph:
    """Replays of a CUDA graph that goes round the rotation."""

    name = "events, CUDA graph"
    can_remember = False  # a replay runs no host code

    def __init__(self, calls: Sequence[Call], estimate: float) -> None:
        self._calls = calls
        rounds = math.ceil(GRAPH_SECONDS / (estimate * len(calls)))
        self._timed = self._captured(rounds)
        self._single = self._timed if rounds == 1 else self._captured(1)
        self._in_graph = rounds * len(calls)

    def _captured(self, rounds: int) -> Captured:
        """A graph that goes round the rotation so often."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._calls[0]()  # loads the kernel, sets its attributes
        torch.cuda.synchronize()
        graph, start, end = torch.cuda.CUDAGraph(), _event_of_a_graph(), _event_of_a_graph()
        results: list[Any] = []
        with recording(graph, stream=stream):
            start.record()
            for _ in range(rounds):
                results = [call() for call in self._calls]
            end.record()
        return Captured(graph, start, end, results)

    def whole(self, calls: int) -> int:
        return self._in_graph

    def sample(self, calls: int) -> float:
        """The mean of a replay."""
        return self._timed.replay() / self._in_graph

    def once(self) -> tuple[float, list[Any]]:
        """One round; the results are copied on the stream of the replay."""
        single, results = self._single, []
        seconds = single.replay(lambda: results.extend(copied(r) for r in single.results))
        return seconds / len(self._calls), results

    def notes(self) -> dict[str, Any]:
        return {"calls_in_graph": self._in_graph}


def _reset_persisting_cache() -> None:
    """Lines of the L2 cache that a kernel marked as persisting become ordinary ones again."""
    with contextlib.suppress(OSError, AttributeError):
        major = str(torch.version.cuda).partition(".")[0]
        ctypes.CDLL(f"libcudart.so.{major}").cudaCtxResetPersistingL2Cache()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def _event_of_a_graph() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True, external=True)


def launch_floor() -> dict[str, float]:
    """Seconds that the smallest kernel takes by each method: no figure can be below."""
    tiny = torch.ones(32, device="cuda")

    def call() -> None:
        torch.neg(tiny, out=tiny)

    graph, stream = Graph([call] * FLOOR_NODES, 1e-6), Stream([call] * 20)
    return {
        "graph": statistics.median(graph.sample(1) for _ in range(20)),
        "stream": statistics.median(stream.sample(20) for _ in range(5)),
    }


# Sensors -------------------------------------------------------------------------------------

FIELDS = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "watts": "power.draw",
    "celsius": "temperature.gpu",
}
THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
"""Reasons for low clocks, by NVML's bit; idleness and application clocks are none."""


def throttles(bits: int) -> list[str]:
    """The reasons in words."""
    return [name for bit, name in THROTTLES.items() if bits & bit]


def sensors() -> Any:
    """A function that reads the device's state: through NVML where its Python package is there,
    else through nvidia-smi, which takes longer."""
    with contextlib.suppress(Exception):
        return _nvml()
    return Rarely(_smi)


class Rarely:
    """Calls a slow function at most once in a while, and says nothing in between."""

    def __init__(self, read: Callable[[], Mapping[str, float]], every: float = 2.0) -> None:
        self._read, self._every, self._last = read, every, -math.inf

    def __call__(self) -> Mapping[str, float]:
        now = time.monotonic()
        if now - self._last < self._every:
            return {}
        self._last = now
        return self._read()


def _nvml() -> Any:
    import pynvml as nvml

    nvml.nvmlInit()
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    reasons = getattr(
        nvml,
        "nvmlDeviceGetCurrentClocksEventReasons",
        nvml.nvmlDeviceGetCurrentClocksThrottleReasons,
    )

    def read() -> dict[str, float]:
        return {
            "sm_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "watts": nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "celsius": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "throttle_bits": reasons(handle),
        }

    read()
    return read


def _smi() -> Mapping[str, float]:
    query = ",".join([*FIELDS.values(), "clocks_throttle_reasons.active"])
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    command = [
        "nvidia-smi",
        f"--id={uuid}",
        f"--query-gpu={query}",
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parse_smi(done.stdout)


def parse_smi(text: str) -> dict[str, float]:
    """The fields of one line of nvidia-smi; those that it does not know are left out."""
    parts = [part.strip() for part in text.strip().split(",")]
    state: dict[str, float] = {}
    for name, part in zip([*FIELDS, "throttle_bits"], parts, strict=False):
        with contextlib.suppress(ValueError):
            state[name] = int(part, 16) if part.startswith("0x") else float(part)
    return state
