"""Write docs/ops.md and the table of ops in README.md from the op pages.

python tools/generate_docs.py            write them
python tools/generate_docs.py --check    exit with 1 if they are not current
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from yaie import ops, pages
from yaie.kernels import native

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- ops: made by tools/generate_docs.py -->", "<!-- end of ops -->"
HEAD = """# The ops

Made by `python tools/generate_docs.py` from the pages in `yaie/ops`; `yaie ops NAME` prints one.
Axes: T tokens (packed), B sequences, Hq query heads, Hk KV heads, D head dim, Dv value dim, P
pages, S tokens a page, W width of the block table, N gathered tokens, V vocabulary, L layers.
"""


def documents() -> dict[Path, str]:
    """What each generated document must hold."""
    table = pages.markdown_table(ops.OPS.values())
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    everything = "\n\n".join([HEAD.rstrip(), table, pages.markdown(ops.OPS.values())])
    return {
        ROOT / "docs" / "ops.md": everything + "\n",
        readme: f"{before}{BEGIN}\n{table}\n{END}{after}",
    }


def main() -> int:
    """Write the documents, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    if native.extension("simt") is None:
        parser.error("the extension yaie._simt is not built, so its kernels would be missing")
    stale = [p for p, text in documents().items() if not p.exists() or p.read_text() != text]
    for path in stale:
        if not check:
            path.write_text(documents()[path])
        print(f"{path.relative_to(ROOT)}: {'not current' if check else 'written'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
