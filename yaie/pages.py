"""An op's page as text, as data and as Markdown, from what the page itself declares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from yaie.op import Op


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
    parts += [line for n, c in op.workloads.items() for line in (f"  {n}", f"      {c!r}")]
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
    workloads = "\n".join(f"- {name}: `{case!r}`" for name, case in op.workloads.items())
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


def _refusals(op: Op) -> list[tuple[str, str]]:
    """Each bad input and its exception."""
    return [(f"{r.what}{'*' * r.contents}:", r.raises.__name__) for r in op.refusals]
