"""Frames of timings -> the tables of the benchmark page: pure pandas, no formatting.

A ratio is a kernel's time over the best peer's time on the same workload and device: below 1 is
faster. Only timed rows have one: what was not judged right, or is no time of hardware, is listed
apart and never averaged. Means of ratios are geometric.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from reports import load
from reports.load import Records
from reports.tables import Outcome

ROW = ["op", "kernel", "workload", "device"]
PLACE = ["op", "workload", "device"]
FAILED = ("wrong", "invalid", "error", "crash")
OURS = "kernel"
RATIO_COLUMNS = ("peer", "peer_seconds", "ratio", "of_limit", "rate", "flop_rate", "intensity")
UNSTEADY_SHARE = 0.2
"""Share of flagged rows from which the whole run is not to be trusted."""
COMPARED = "the timed outputs are those of the reference"
"""How the record of a row begins whose outputs were compared."""
SKIPPED_SHARE = 0.5
THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal limit",
    0x40: "hardware thermal limit",
    0x80: "power brake",
}
"""NVML's reasons for low clocks."""


@dataclass(frozen=True)
class Served:
    """What 1000 engine steps of a mix cost in the kernels of this report, in seconds."""

    mix: str
    ours: float
    peers: float
    limit: float
    missing: tuple[str, ...]
    """workloads of the mix without a time"""


def rows(timings: pd.DataFrame) -> pd.DataFrame:
    """The last word on each row, with what it is compared to."""
    latest = timings.drop_duplicates(ROW, keep="last").reset_index(drop=True)
    if latest.empty:
        return latest.reindex(columns=[*latest.columns, *RATIO_COLUMNS, "throttled"])
    timed = latest["status"] == "timed"
    seconds = latest["seconds"].where(timed)
    best = _best_peer(latest[timed])
    found = [
        _other_best(best.get(tuple(place), ()), kernel)
        for place, kernel in zip(latest[PLACE].to_numpy(), latest["kernel"], strict=True)
    ]
    peer_seconds = pd.Series([s for _, s in found], dtype="float64").where(timed)
    return latest.assign(
        peer=pd.Series([name for name, _ in found]).where(peer_seconds.notna(), ""),
        peer_seconds=peer_seconds,
        ratio=seconds / peer_seconds,
        of_limit=latest["limit"] / seconds,
        rate=latest["bytes"] / seconds,
        flop_rate=(latest["flops"] / seconds).where(latest["flops"] > 0),
        intensity=(latest["flops"] / latest["bytes"]).where(latest["flops"] > 0),
        throttled=[throttled(c) for c in latest["conditions"]],
    )


def _best_peer(timed: pd.DataFrame) -> dict[tuple[str, ...], list[tuple[str, float]]]:
    """The peers of each workload, fastest first."""
    peers = timed[timed["role"] == "peer"].sort_values("seconds", kind="stable")
    found: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for row in peers.itertuples():
        found.setdefault((row.op, row.workload, row.device), []).append((row.kernel, row.seconds))
    return found


def _other_best(peers: Iterable[tuple[str, float]], kernel: str) -> tuple[str, float]:
    """A peer is compared with the best of the others."""
    return next(((name, s) for name, s in peers if name != kernel), ("", float("nan")))


def throttled(conditions: dict[str, object]) -> str:
    """Why clocks were low while a row was timed."""
    bits = conditions.get("throttle_bits")
    if not isinstance(bits, int):
        return ""
    return ", ".join(name for bit, name in THROTTLES.items() if bits & bit)


def worst_first(table: pd.DataFrame) -> pd.DataFrame:
    """Timed rows: ours before peers, steady ones before those whose time is hardly known, slowest
    against the best peer first, then those farthest from the limit."""
    timed = table[table["status"] == "timed"]
    keys = pd.DataFrame(
        {
            "_role": timed["role"] != OURS,
            "_unsteady": timed["unsteady"],
            "_ratio": -timed["ratio"].fillna(0.0),
            "_of_limit": timed["of_limit"],
        }
    )
    order = keys.sort_values(["_role", "_unsteady", "_ratio", "_of_limit"], kind="stable").index
    return timed.loc[order]


def untimed(table: pd.DataFrame) -> pd.DataFrame:
    """Rows without a time, failures first, alike ones as one line."""
    left = table[table["status"] != "timed"]
    order = {status: i for i, status in enumerate((*FAILED, "slow", "skipped"))}
    grouped = (
        left.groupby(["status", "op", "kernel", "reason"], sort=False)
        .agg(
            workloads=("workload", "size"),
            example=("workload", "first"),
            command=("command", "first"),
            judged_case=("judged_case", "first"),
        )
        .reset_index()
    )
    grouped["_order"] = grouped["status"].map(order).fillna(len(order))
    return grouped.sort_values(["_order", "op", "kernel"], kind="stable").drop(columns="_order")


def families(table: pd.DataFrame) -> pd.DataFrame:
    """One line for each op and kernel."""
    timed = table[table["status"] == "timed"]
    columns = ["op", "kernel", "role", "device", "rows", "ratio", "of_limit", "worst", "unsteady"]
    if timed.empty:
        return pd.DataFrame(columns=columns)
    lines = []
    for (op, kernel, device), part in timed.groupby(["op", "kernel", "device"], sort=True):
        compared = part.dropna(subset=["ratio"])
        worst = compared.sort_values("ratio").tail(1)
        lines.append(
            {
                "op": op,
                "kernel": kernel,
                "role": part["role"].iloc[0],
                "device": device,
                "rows": len(part),
                "ratio": geometric_mean(part["ratio"]),
                "of_limit": geometric_mean(part["of_limit"]),
                "worst": worst["workload"].iloc[0] if len(worst) else "",
                "unsteady": int(part["unsteady"].sum()),
            }
        )
    frame = pd.DataFrame(lines, columns=columns)
    return frame.assign(_peer=frame["role"] != OURS).sort_values(
        ["op", "_peer", "ratio"], kind="stable"
    )[columns]


def geometric_mean(values: pd.Series) -> float:
    known = values.dropna()
    known = known[known > 0]
    return float(np.exp(np.log(known).mean())) if len(known) else float("nan")


def of_best(table: pd.DataFrame) -> float:
    """Geometric mean over the workloads of our fastest kernel's time over the best peer's."""
    ours = table[(table["status"] == "timed") & (table["role"] == OURS)]
    return geometric_mean(ours.groupby(PLACE)["ratio"].min()) if len(ours) else float("nan")


def conformance(table: pd.DataFrame) -> pd.DataFrame:
    """One line for each op and kernel: how many Cases were judged before timing, how many of them
    passed, the largest share of the error budget that was used, and how many rows had their timed
    outputs compared with the reference, or with each other alone."""
    columns = ["op", "kernel", "role", "cases", "passed", "used", "compared", "repeated", "failed"]
    known = table[~table["judged"].fillna("").isin(("", "unsupported"))]
    lines = []
    for (op, kernel, role), part in known.groupby(["op", "kernel", "role"], sort=True):
        cases = part.drop_duplicates("judged_case")
        compared = part["audit"].fillna("").str.startswith(COMPARED)
        lines.append(
            {
                "op": op,
                "kernel": kernel,
                "role": role,
                "cases": len(cases),
                "passed": int((cases["judged"] == "pass").sum()),
                "used": cases["used"].max(),
                "compared": int(compared.sum()),
                "repeated": int((part["audit"].fillna("").ne("") & ~compared).sum()),
                "failed": int(part["status"].isin(FAILED).sum()),
            }
        )
    return pd.DataFrame(lines, columns=columns)


def served(table: pd.DataFrame) -> list[Served]:
    """The served time of each mix: the sum over its workloads of times run and best time."""
    mixes = sorted({mix for weights in table.get("weights", ()) for mix in weights})
    found = []
    for mix in mixes:
        part = table[[mix in weights for weights in table["weights"]]]
        sums = {"ours": 0.0, "peers": 0.0, "limit": 0.0}
        missing: list[str] = []
        for (op, workload), lines in part.groupby(["op", "workload"]):
            weight = lines["weights"].iloc[0][mix]
            timed = lines[lines["status"] == "timed"]
            if timed.empty:
                missing.append(f"{op}: {workload}")
                continue
            sums["ours"] += weight * timed.loc[timed["role"] == OURS, "seconds"].min()
            sums["peers"] += weight * timed.loc[timed["role"] == "peer", "seconds"].min()
            sums["limit"] += weight * timed["limit"].min()
        found.append(Served(mix, **sums, missing=tuple(missing)))
    return found


def outcome(records: Records, table: pd.DataFrame) -> Outcome:
    """A kernel of ours that failed fails the run; a peer that failed is a finding; a run that
    measured little, or measured it badly, is not green."""
    failed = table[table["status"].isin(FAILED) & (table["role"] != "peer")]
    timed = table[table["status"] == "timed"]
    said = _counted(table)
    if len(failed):
        kernels = ", ".join(sorted(set(failed["kernel"])))
        return Outcome("fail", f"{_count(len(failed), 'row')} of {kernels} failed", said)
    if timed.empty:
        return Outcome("inconclusive", "Nothing was timed", said)
    if records.torn:
        return Outcome("inconclusive", "The run is not whole", said)
    timeable = table[table["role"] != "executor"]
    if (timeable["status"] == "skipped").mean() > SKIPPED_SHARE:
        return Outcome("inconclusive", "The budget ended before most rows were reached", said)
    if timed["unsteady"].mean() > UNSTEADY_SHARE:
        return Outcome("inconclusive", "Too unsteady to be trusted", said)
    return Outcome("pass", "Every timed kernel was judged, and its timed outputs are right", said)


def cautions(records: Records, table: pd.DataFrame) -> list[str]:
    """What limits the trust in the numbers."""
    notes = list(records.notes)
    timed = table[table["status"] == "timed"]
    peers = table[table["status"].isin(FAILED) & (table["role"] == "peer")]
    for (op, kernel), part in peers.groupby(["op", "kernel"]):
        notes.append(
            f"{kernel} of {op} failed {_count(len(part), 'row')}, which have no time: "
            f"{part['reason'].iloc[0]}"
        )
    skipped = table[table["status"] == "skipped"]
    if len(skipped):
        executor = int((skipped["role"] == "executor").sum())
        only = f", {executor} of them of the executor, which have no time" if executor else ""
        notes.append(
            f"{_count(len(skipped), 'row')} not reached before the time budget was spent{only}"
        )
    unsteady = int(timed["unsteady"].sum())
    if unsteady:
        notes.append(f"{_count(unsteady, 'row')} unsteady, flagged in the table")
    warm = int((~timed["cold"]).sum())
    if warm:
        notes.append(
            f"{_count(warm, 'row')} timed warm: not enough copies of the arguments fitted in "
            "memory to keep the data out of the cache"
        )
    stolen = [c["stolen"][1] for c in timed["conditions"] if "stolen" in c]
    if stolen and np.median(stolen) > 0.02:
        notes.append("the machine gave more than 2 % of its time to others while rows were timed")
    slowed = timed[timed["throttled"] != ""]
    if len(slowed):
        reasons = ", ".join(sorted(set(slowed["throttled"])))
        notes.append(f"clocks were lowered during {_count(len(slowed), 'row')}: {reasons}")
    unheld = sum(1 for n in timed["notes"] if n.get("bursts_not_held"))
    if unheld:
        notes.append(f"{_count(unheld, 'row')} may hold host time: the stream ran dry")
    for mix in served(table):
        if mix.missing:
            notes.append(f"no served time for the mix {mix.mix}: {len(mix.missing)} without a time")
    return notes


def _counted(table: pd.DataFrame) -> str:
    timed = table[table["status"] == "timed"]
    if timed.empty:
        return f"{_count(len(table), 'row')} in these records, none with a time."
    kernels, ops = kernels_of(timed), timed["op"].nunique()
    ours = of_best(table)
    versus = f" Our best kernels take {ours:.2f} of the best peer's time." if ours == ours else ""
    names = f"{_count(kernels, 'kernel')}, {_count(ops, 'op')}"
    return f"{len(timed):,} of {_count(len(table), 'row')} timed: {names}.{versus}"


def kernels_of(table: pd.DataFrame) -> int:
    """How many kernels the rows are of; a name may serve several ops."""
    return len(table[["op", "kernel"]].drop_duplicates())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


# History -------------------------------------------------------------------------------------


def history(path: Path, runs_at_most: int = 30) -> pd.DataFrame:
    """The timed rows of every run under a folder, oldest run first: run, started, machine, key
    columns and seconds. Files that cannot be trusted are left out: they are another run's."""
    frames = []
    for file in load.find_files(path):
        try:
            records = load.load(file)
        except (load.RecordError, OSError):
            continue
        timed = records.timings[records.timings["status"] == "timed"]
        if timed.empty or records.runs.empty:
            continue
        head = records.runs.iloc[0]
        machine = str(head.get("gpu") or "") or str(head.get("cpu") or "")
        frames.append(
            timed[["run", *ROW, "seconds", "role"]].assign(
                started=str(head.get("started", "")), machine=machine
            )
        )
    if not frames:
        return NO_HISTORY
    every = pd.concat(frames, ignore_index=True).drop_duplicates(["run", *ROW], keep="last")
    kept = sorted(set(every["started"]))[-runs_at_most:]
    return every[every["started"].isin(kept)].sort_values("started", kind="stable")


NO_HISTORY = pd.DataFrame(columns=["run", *ROW, "seconds", "role", "started", "machine"])


def trend(past: pd.DataFrame, run: str) -> pd.DataFrame:
    """For each earlier run on the same machine, and each op and kernel: the geometric mean of its
    times over this run's times, on the workloads of both. Above 1: it was slower then."""
    columns = ["run", "started", "op", "kernel", "workloads", "relative"]
    now = past[past["run"] == run]
    if now.empty:
        return pd.DataFrame(columns=columns)
    alike = past[past["machine"] == now["machine"].iloc[0]]
    joined = alike.merge(now[[*ROW, "seconds"]], on=ROW, suffixes=("", "_now"))
    joined["relative"] = joined["seconds"] / joined["seconds_now"]
    if joined["run"].nunique() < 2:
        return pd.DataFrame(columns=columns)
    lines = (
        joined.groupby(["run", "started", "op", "kernel"])
        .agg(workloads=("relative", "size"), relative=("relative", geometric_mean))
        .reset_index()
    )
    return lines.sort_values(["op", "kernel", "started"], kind="stable")[columns]
