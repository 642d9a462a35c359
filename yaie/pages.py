"""An op's page as text, as data and as Markdown, from what the page itself declares."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from yaie.op import Op, written

MOST_SHOWN = 8
"""Parts of a tuple that readers are shown."""


def meaning(op: Op) -> str:
    """The first line of an op's page."""
    return op.doc.partition("\n")[0].partition(": ")[2]


def text(op: Op) -> str:
    """What `yaie ops NAME` prints."""
    parts = [op.doc.strip(), "", "Signature", f"  {op.signature.text}"]
    parts += ["", "Kernels", *(f"  {k.name:20} on {k.device} tensors" for k in op.kernels.values())]
    parts += ["", "Bad inputs, refused before any launch (*: in checked mode)"]
    parts += [f"  {what} {kind}" for what, kind in _refusals(op)]
    parts += ["", "Workloads"]
    parts += [line for n, c in op.workloads.items() for line in (f"  {n}", f"      {told(c)}")]
    parts += ["", "Edges that conformance must meet", *(f"  {name}" for name in op.edges)]
    return "\n".join(parts)


def summary(op: Op) -> dict[str, Any]:
    """What `yaie ops --json` prints of each op."""
    return {
        "name": op.name,
        "meaning": meaning(op),
        "signature": op.signature.text,
        "kernels": list(op.kernels),
        "edges": list(op.edges),
        "errors": [refusal.what for refusal in op.refusals],
        "workloads": list(op.workloads),
    }


def markdown_table(ops: Iterable[Op]) -> str:
    """The ops in one table: what each means, and our kernels for it."""
    rows = ["| op | meaning | kernels beside the reference |", "|---|---|---|"]
    rows += [f"| `{op.name}` | {meaning(op)} | {', '.join(_variants(op))} |" for op in ops]
    return "\n".join(rows)


def markdown(ops: Iterable[Op]) -> str:
    """Every page, one after the other."""
    return "\n\n".join(_markdown_page(op) for op in ops)


def _markdown_page(op: Op) -> str:
    edges = ", ".join(op.edges)
    errors = "; ".join(f"{what} {kind}" for what, kind in _refusals(op))
    workloads = "\n".join(f"- {name}: `{told(case)}`" for name, case in op.workloads.items())
    return "\n\n".join(
        [
            f"## {op.name}",
            f"```text\n{op.doc.strip()}\n```",
            f"`{op.signature.text}`",
            f"Kernels: {', '.join(_variants(op))}.",
            f"Edges that conformance must meet: {edges}.",
            f"Refused before any launch (\\*: in checked mode): {errors}.",
            f"Workloads:\n\n{workloads}",
        ]
    )


def _variants(op: Op) -> list[str]:
    """Names of the kernels, those of the executor and of the GPU as one."""
    faces = ("simt.", "cuda.")
    plain = [n for n in op.kernels if n != "reference" and not n.startswith(faces)]
    ours = [n.removeprefix("simt.") for n in op.kernels if n.startswith("simt.")]
    return [*(f"`{n}`" for n in plain), *(f"`simt.{n}` / `cuda.{n}`" for n in ours)]


def told(case: Any) -> str:
    """A Case for readers, who need not see each of a thousand numbers. (Its repr can be pasted.)"""
    return written(case, _told)


def _told(value: Any) -> str:
    """Of a tuple, equal elements in a row once, and the first few parts alone."""
    if not isinstance(value, tuple):
        return repr(value)
    runs = [(item, len(list(run))) for item, run in itertools.groupby(value)]
    parts = [
        f"{_told(item)} × {n}" if n > 2 else ", ".join([_told(item)] * n)
        for item, n in runs[:MOST_SHOWN]
    ]
    more = [f"… {len(value)} in all"] if len(runs) > MOST_SHOWN else []
    only = "," if len(value) == 1 else ""
    return f"({', '.join([*parts, *more])}{only})"


def _refusals(op: Op) -> list[tuple[str, str]]:
    """Each bad input and its exception."""
    return [(f"{r.what}{'*' * r.contents}:", r.raises.__name__) for r in op.refusals]
