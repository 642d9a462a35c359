"""Tables of timings -> Vega-Lite charts, and the one script that draws them offline.

Altair writes the charts; vl-convert bundles Vega and its embedder into one script and draws each
chart as SVG, for paper and for readers without JavaScript. Blue is fast and orange is slow, and
every colour has its number or its shape beside it. Every chart's figures are in a table as well.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

HEAT_LIMIT = 4.0
"""Ratios beyond a factor of this have the last colour."""
STRIP_ROWS = 40
STRIP_SAMPLES = 60
# Okabe and Ito's colours, apart from each other in every kind of colour blindness.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#b8a900"]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke", "wedge"]


@dataclass(frozen=True)
class Chart:
    """A chart: its name in the page, the specification, and the same as SVG."""

    name: str
    title: str
    about: str
    spec: str
    svg: str


def available() -> bool:
    """Whether the libraries that draw are installed; without them the page has its tables."""
    return all(importlib.util.find_spec(name) for name in ("altair", "vl_convert"))


@cache
def bundle() -> str:
    """Vega, Vega-Lite and the embedder as one script, which puts vegaEmbed on the window."""
    import altair
    import vl_convert

    version = ".".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version))


def make(table: pd.DataFrame, peaks: Mapping[str, Any] | None, trend: pd.DataFrame) -> list[Chart]:
    """Every chart that there is data for."""
    timed = table[table["status"] == "timed"]
    if timed.empty or not available():
        return []
    found = [
        _bandwidth(timed, peaks),
        _roofline(timed, peaks),
        _ratios(timed),
        _strips(timed),
        _trend(trend),
    ]
    return [chart for chart in found if chart is not None]


def _drawn(name: str, title: str, about: str, chart: Any) -> Chart:
    import altair
    import vl_convert

    spec = chart.configure(font="system-ui, sans-serif", background="transparent").to_dict()
    version = ".".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    svg = vl_convert.vegalite_to_svg(spec, vl_version=version)
    return Chart(name, title, about, json.dumps(spec), svg)


def _scales(timed: pd.DataFrame) -> dict[str, Any]:
    """One colour and one shape a kernel, the same in every chart."""
    import altair as alt

    names = sorted(timed["kernel"].unique())
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    # Shapes change when the colours have been round once.
    shapes = [SHAPES[(i + i // len(COLOURS)) % len(SHAPES)] for i in range(len(names))]
    return {
        "color": alt.Color(
            "kernel:N", title="kernel", scale=alt.Scale(domain=names, range=colours)
        ),
        "shape": alt.Shape("kernel:N", title="kernel", scale=alt.Scale(domain=names, range=shapes)),
    }


def _points(frame: pd.DataFrame, x: str, y: str, timed: pd.DataFrame, titles: Any) -> Any:
    """Points in two logarithmic axes; a click on the legend singles kernels out."""
    import altair as alt

    picked = alt.selection_point(fields=["kernel"], bind="legend")
    log = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(format="~s", grid=True, tickCount=6)
    columns = ["op", "kernel", "workload", "time", "share", x, y]
    return (
        alt.Chart(frame[columns])
        .mark_point(size=70, filled=True, opacity=0.85)
        .encode(
            x=alt.X(f"{x}:Q", scale=log, title=titles[0], axis=axis),
            y=alt.Y(f"{y}:Q", scale=log, title=titles[1], axis=axis),
            opacity=alt.condition(picked, alt.value(0.9), alt.value(0.08)),
            tooltip=[
                alt.Tooltip("op:N"),
                alt.Tooltip("workload:N"),
                alt.Tooltip("kernel:N"),
                alt.Tooltip("time:N"),
                alt.Tooltip("share:N", title="of the limit"),
            ],
            **_scales(timed),
        )
        .add_params(picked)
        .properties(width=820, height=340)
    )


def _ceilings(lines: list[dict[str, Any]], y: str) -> Any:
    """Dashed lines at what the machine reached, each with its name."""
    import altair as alt

    data = pd.DataFrame(lines)
    rules = alt.Chart(data).mark_rule(strokeDash=[6, 4], color="#808080").encode(y=f"{y}:Q")
    words = (
        alt.Chart(data)
        .mark_text(align="left", dx=4, dy=-5, color="#808080")
        .encode(y=f"{y}:Q", text="name:N", x=alt.value(0))
    )
    return rules + words


def _labelled(timed: pd.DataFrame) -> pd.DataFrame:
    return timed.assign(
        time=[duration(s) for s in timed["seconds"]],
        share=[f"{share:.1%}" for share in timed["of_limit"]],
    )


def _bandwidth(timed: pd.DataFrame, peaks: Mapping[str, Any] | None) -> Chart:
    points = _points(
        _labelled(timed), "bytes", "rate", timed, ("bytes that must move", "bytes a second")
    )
    chart = points
    if peaks:
        kinds = {"copy": "copy", "read": "read", "write": "write"}
        best = max(kinds, key=lambda kind: peaks["memory"].get(kind, 0.0))
        rate = peaks["memory"][best]
        chart = _ceilings([{"rate": rate, "name": f"memory: {rate / 1e9:,.0f} GB/s"}], "rate") + (
            points
        )
    return _drawn(
        "bandwidth",
        "Bandwidth",
        "Bytes a second against the bytes that the op must move. The line is the best plain copy, "
        "read or write of this run; what was timed warm may be above it.",
        chart,
    )


def _roofline(timed: pd.DataFrame, peaks: Mapping[str, Any] | None) -> Chart | None:
    import altair as alt

    some = timed.dropna(subset=["flop_rate"])
    if some.empty:
        return None
    chart = _points(
        _labelled(some), "intensity", "flop_rate", timed, ("flops a byte", "flops a second")
    )
    if peaks:
        rate = max(peaks["memory"].get(kind, 0.0) for kind in ("copy", "read", "write"))
        x = sorted({some["intensity"].min() / 2, *some["intensity"], some["intensity"].max() * 2})
        roofs = []
        for dtype in sorted(set(some["dtype"]) & set(peaks["matmul"])):
            knee = peaks["matmul"][dtype] / rate
            roofs += [
                {"x": v, "y": min(v * rate, peaks["matmul"][dtype]), "dtype": dtype}
                for v in sorted({*x, *([knee] if x[0] < knee < x[-1] else [])})
            ]
        lines = (
            alt.Chart(pd.DataFrame(roofs))
            .mark_line(color="#808080", strokeDash=[6, 4])
            .encode(x="x:Q", y="y:Q", detail="dtype:N", tooltip=["dtype:N", "y:Q"])
        )
        chart = lines + chart
    return _drawn(
        "roofline",
        "Roofline",
        "Flops a second against flops a byte, under the mask. The roof is this run's best memory "
        "rate and its matrix product of each dtype.",
        chart,
    )


def _ratios(timed: pd.DataFrame) -> Chart | None:
    import altair as alt

    some = timed.dropna(subset=["ratio"])
    if some.empty:
        return None
    some = some.assign(
        place=some["op"] + " · " + some["workload"],
        shown=some["ratio"].clip(1 / HEAT_LIMIT, HEAT_LIMIT),
        text=[f"{r:.2f}" for r in some["ratio"]],
    )
    columns = ["place", "kernel", "ratio", "shown", "text", "peer"]
    base = alt.Chart(some[columns]).encode(
        x=alt.X("kernel:N", title=None, axis=alt.Axis(labelAngle=-30, orient="top")),
        y=alt.Y("place:N", title=None, axis=alt.Axis(labelLimit=420)),
    )
    scale = alt.Scale(
        type="log", domain=[1 / HEAT_LIMIT, 1, HEAT_LIMIT], range=["#2166ac", "#f2f2f2", "#e08214"]
    )
    boxes = base.mark_rect(stroke="#ffffff33").encode(
        color=alt.Color(
            "shown:Q",
            scale=scale,
            title="time / best peer",
            legend=alt.Legend(values=[0.25, 0.5, 1, 2, 4], format=".2~f"),
        ),
        tooltip=["place:N", "kernel:N", alt.Tooltip("ratio:Q", format=".3f"), "peer:N"],
    )
    words = base.mark_text().encode(
        text="text:N",
        color=alt.condition(
            f"datum.shown <= {1 / 2.4} ", alt.value("#ffffff"), alt.value("#1b1f24")
        ),
    )
    chart = (boxes + words).properties(width=alt.Step(92), height=alt.Step(22))
    return _drawn(
        "ratios",
        "Time over the best peer",
        "Below 1 (blue) is faster than the best other peer on that workload, above 1 (orange) "
        f"slower; the colour ends at a factor of {HEAT_LIMIT:g}.",
        chart,
    )


def _strips(timed: pd.DataFrame) -> Chart | None:
    import altair as alt

    order = timed.sort_values("spread", ascending=False, kind="stable").head(STRIP_ROWS)
    points = []
    for row in order.itertuples():
        step = max(1, len(row.samples) // STRIP_SAMPLES)
        points += [
            {
                "row": f"{row.op} · {row.workload} · {row.kernel}",
                "relative": sample / row.seconds,
                "time": duration(sample),
            }
            for sample in row.samples[::step]
        ]
    if not points:
        return None
    frame = pd.DataFrame(points)
    chart = (
        alt.Chart(frame)
        .mark_tick(thickness=1.5, opacity=0.45, color=COLOURS[0])
        .encode(
            x=alt.X(
                "relative:Q",
                title="sample over the row's median (beyond 2: at the edge)",
                scale=alt.Scale(domain=[0.5, 2], clamp=True, type="log"),
                axis=alt.Axis(values=[0.5, 0.7, 0.9, 1, 1.1, 1.4, 2], format=".2~f"),
            ),
            y=alt.Y(
                "row:N", title=None, sort=list(frame["row"].unique()), axis=alt.Axis(labelLimit=420)
            ),
            tooltip=["row:N", "time:N", alt.Tooltip("relative:Q", format=".3f")],
        )
        .properties(width=520, height=alt.Step(17))
    )
    return _drawn(
        "samples",
        "Samples",
        f"Every sample of the {len(order)} widest rows over its median: one narrow band is "
        "a steady row, two bands are two states of the machine.",
        chart,
    )


def _trend(trend: pd.DataFrame) -> Chart | None:
    import altair as alt

    if trend.empty:
        return None
    frame = trend.assign(name=trend["op"] + " · " + trend["kernel"])
    chart = (
        alt.Chart(frame)
        .mark_line(point=True)
        .encode(
            x=alt.X("started:T", title=None),
            y=alt.Y("relative:Q", title="time over this run's", scale=alt.Scale(zero=False)),
            color=alt.Color("name:N", title=None, scale=alt.Scale(range=COLOURS)),
            tooltip=[
                "name:N",
                "run:N",
                "workloads:Q",
                alt.Tooltip("relative:Q", format=".3f"),
            ],
        )
        .properties(width=820, height=260)
    )
    return _drawn(
        "trend",
        "Trend",
        "Earlier runs on the same machine: the geometric mean of a kernel's times over this run's. "
        "Above 1 it was slower then.",
        chart,
    )


def duration(seconds: float) -> str:
    """A time with the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
