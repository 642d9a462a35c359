"""Defects planted into the engine, one at a time: the laws must find each.

A mutant is an edit of a source file. Its functions are compiled and take the place of the code of
those that are there, in this process, until the block ends.

    python tests/engine_mutants.py        the table of docs/engine.md
"""

from __future__ import annotations

import importlib
import sys
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """``edits`` are pairs of what stands once in yaie/engine/<file>.py, and what comes there."""

    file: str
    what: str
    edits: tuple[tuple[str, str], ...]


def _mutant(file: str, what: str, *edits: tuple[str, str]) -> Mutant:
    return Mutant(file, what, edits)


MUTANTS = {
    # Prefixes
    "prefix-whole-prompt": _mutant(
        "scheduler",
        "The cache is matched to the whole prompt: nothing is left to compute",
        ("self.tree.match(sequence.tokens[:-1])", "self.tree.match(sequence.tokens)"),
    ),
    "prefix-not-computed": _mutant(
        "scheduler",
        "A prefix is shared before all of it is computed",
        ("full = sequence.computed // self.page_size", "full = sequence.length // self.page_size"),
    ),
    "prefix-half-page": _mutant(
        "scheduler",
        "A last page that is not full is shared",
        (
            "full = sequence.computed // self.page_size",
            "full = -(-sequence.computed // self.page_size)",
        ),
    ),
    "prefix-never-shared": _mutant(
        "scheduler",
        "What is computed is never given to the cache",
        ("full == sequence.shared:", "full >= sequence.shared:"),
    ),
    "prefix-stale-table": _mutant(
        "scheduler",
        "Duplicates of cached pages are freed, and the block table still names them",
        ("        sequence.table[:full] = pages\n", ""),
    ),
    # Pages
    "page-freed-while-shared": _mutant(
        "scheduler",
        "All of a sequence's pages are freed when it shares them",
        ("free(own[own != pages[sequence.shared :]])", "free(own)"),
    ),
    "page-duplicates-kept": _mutant(
        "scheduler",
        "Duplicates of cached pages are never freed",
        ("self.pool.free(own[own != pages[sequence.shared :]])", "pass"),
    ),
    "page-of-the-tree-freed": _mutant(
        "scheduler",
        "A request that ends frees the pages that the tree holds too",
        (
            "self.pool.free(sequence.table[sequence.shared : sequence.pages])",
            "self.pool.free(sequence.table[: sequence.pages])",
        ),
    ),
    "page-evicted-not-freed": _mutant(
        "scheduler",
        "Evicted pages do not return to the pool",
        ("            self.pool.free(evicted)\n", ""),
    ),
    "page-last-one-refused": _mutant(
        "scheduler",
        "No request gets the last page that could be evicted for it",
        ("if short > self.tree.evictable:", "if short >= max(self.tree.evictable, 1):"),
    ),
    # Locks
    "lock-leaks-at-the-end": _mutant(
        "scheduler",
        "A request that ends, is cancelled or preempted keeps its lock",
        (
            "        self.tree.unlock(sequence.node)\n        self.pool.free(sequence.table",
            "        self.pool.free(sequence.table",
        ),
    ),
    "lock-leaks-when-full": _mutant(
        "scheduler",
        "A request that cannot be admitted keeps its lock",
        (
            "        if rest is None:\n            self.tree.unlock(node)\n",
            "        if rest is None:\n",
        ),
    ),
    "lock-not-moved": _mutant(
        "scheduler",
        "The lock stays on the old prefix when a longer one is shared",
        (
            "        sequence.node = node\n        sequence.shared = full",
            "        sequence.shared = full",
        ),
    ),
    # The line
    "budget-ignored-by-admission": _mutant(
        "scheduler",
        "Chunks of requests just admitted do not count against the budget",
        (
            "            count = min(sequence.length - sequence.computed, budget)\n"
            "            chunks.append(Chunk(sequence, sequence.computed, count))\n"
            "            budget -= count\n"
            "        return chunks",
            "            count = min(sequence.length - sequence.computed, budget)\n"
            "            chunks.append(Chunk(sequence, sequence.computed, count))\n"
            "        return chunks",
        ),
    ),
    "budget-ignored-by-chunks": _mutant(
        "scheduler",
        "The rest of a prompt is computed at once, whatever the budget",
        (
            "            count = min(sequence.length - start, budget)\n            fits",
            "            count = sequence.length - start\n            fits",
        ),
    ),
    "one-request-too-many": _mutant(
        "scheduler",
        "One more request runs than may",
        (
            "budget and self.waiting and len(self.running) <",
            "budget and self.waiting and len(self.running) <=",
        ),
    ),
    "oldest-preempted": _mutant(
        "scheduler",
        "The oldest request is preempted, not the youngest",
        ("youngest = self.running.pop()", "youngest = self.running.pop(0)"),
    ),
    "preempted-to-the-end": _mutant(
        "scheduler",
        "A preempted request goes to the end of the line",
        ("self.waiting.appendleft(youngest)", "self.waiting.append(youngest)"),
    ),
    "preempted-not-computed-again": _mutant(
        "scheduler",
        "A preempted request goes on where it stopped, its keys and values gone",
        ("pages = sequence.shared = sequence.computed = 0", "pages = sequence.shared = 0"),
        (
            "sequence.computed = len(pages) * self.page_size",
            "sequence.computed = max(sequence.computed, len(pages) * self.page_size)",
        ),
    ),
    "preempted-says-it-again": _mutant(
        "scheduler",
        "A preempted request forgets its output and says it once more",
        (
            "        sequence.node = None\n",
            "        sequence.node = None\n"
            "        sequence.length = len(sequence.request.prompt)\n",
        ),
    ),
    "token-in-mid-prompt": _mutant(
        "scheduler",
        "Every chunk gives a token, not only the last",
        ("return self.stop == self.sequence.length", "return self.stop > 0"),
    ),
    # Batches
    "positions-from-the-chunk": _mutant(
        "batch",
        "Positions restart at 0 in each chunk",
        ("- indptr[row_of] + start[row_of]", "- indptr[row_of]"),
    ),
    "decode-position-behind": _mutant(
        "batch",
        "Decode takes the position before its token's",
        ("positions[:], row_of = start, np", "positions[:], row_of = np.maximum(start - 1, 0), np"),
    ),
    "lengths-without-the-chunk": _mutant(
        "batch",
        "kv_lens leaves out the tokens of this step",
        ("lens[:n] = start + length", "lens[:n] = start"),
    ),
    "slots-of-the-first": _mutant(
        "batch",
        "Every sequence stores into the pages of the first",
        ("slots[:] = table[row_of, page]", "slots[:] = table[0, page]"),
    ),
    "token-before-last": _mutant(
        "batch",
        "The next token follows from the first row of a chunk, not the last",
        ("last = [end - 1 for end", "last = [end - chunk.length for end"),
    ),
    # Graphs
    "graph-padding-stored": _mutant(
        "graphs",
        "Rows of padding store into slot 0",
        ("slots[n:] = 0, 0, -1", "slots[n:] = 0, 0, 0"),
    ),
    "graph-old-tables": _mutant(
        "graphs",
        "A page that a sequence gets while the same batch goes on is not in the batch's table",
        ("if versions == self._versions:", "if -1 not in self._versions:"),
    ),
    "graph-old-numbers": _mutant(
        "graphs",
        "A replay computes the batch that was recorded",
        ("        rows.send(recorded.buffer)\n", ""),
    ),
    "graph-too-narrow": _mutant(
        "graphs",
        "A recording serves block tables wider than its own",
        ("width_for(pages, self.max_pages)\n", "1\n"),
    ),
    "graph-mid-prompt": _mutant(
        "graphs",
        "One token in the middle of a prompt is taken for decode",
        ("chunk.length == 1 and chunk.is_last", "chunk.length == 1"),
    ),
    # Steps begun ahead
    "ahead-tokens-of-the-host": _mutant(
        "graphs",
        "A step that is begun ahead computes the tokens that the host knew last",
        (
            "            recorded.tokens[: len(chunks)].copy_(tokens.clamp(min=0))\n",
            "            pass\n",
        ),
    ),
    "ahead-after-no-token": _mutant(
        "graphs",
        "A row without a distribution gives -1, which is computed as a token",
        ("tokens.clamp(min=0)", "tokens"),
    ),
    "ahead-with-penalties": _mutant(
        "engine",
        "Steps are begun ahead although penalties lack the last token",
        ("if needs_history(begun.chunks):", "if False:"),
    ),
    "ahead-of-the-ended": _mutant(
        "engine",
        "A request that has ended takes the token of the step begun ahead",
        ("            if self._is_live(chunk)\n        ]", "        ]"),
    ),
    "ahead-marks-the-ended": _mutant(
        "engine",
        "Tokens computed ahead count as computed for a request that has ended",
        ("live = [chunk for chunk in begun.chunks if self._is_live(chunk)]", "live = begun.chunks"),
    ),
    "ahead-beyond-the-end": _mutant(
        "scheduler",
        "Steps are begun ahead for requests that may say no more",
        ("if any(chunk.sequence.is_last_but_one for chunk in chunks):", "if False:"),
    ),
    "ahead-with-who-is-left": _mutant(
        "scheduler",
        "Steps are begun ahead with a request that has ended or been cancelled",
        ("if [chunk.sequence for chunk in chunks] != self.running:", "if not chunks:"),
    ),
    "ahead-without-pages": _mutant(
        "scheduler",
        "A step is begun ahead without a page for its tokens",
        (
            "needed = self._pages_for(sequence.length + 1) - sequence.pages\n            if",
            "needed = 0\n            if",
        ),
    ),
    "ahead-forgets-who-waits": _mutant(
        "engine",
        "Where waiting for tokens fails, the step begun ahead takes the place of theirs",
        (
            "            following = self._begin_next(begun)\n",
            "            self._begun = following = self._begin_next(begun)\n",
        ),
    ),
    "ahead-drops-unseen": _mutant(
        "engine",
        "A step whose requests have all ended is not counted",
        ("            self._count(begun, [])\n", ""),
    ),
    "ahead-forever": _mutant(
        "scheduler",
        "Steps are begun ahead while a request waits that could run",
        ("if self.waiting and len(self.running) < self.max_requests:", "if False:"),
    ),
    # Sampling
    "seed-of-the-row": _mutant(
        "sampler",
        "The seed depends on the row of the batch",
        (
            "[s.request.seed for s in sequences]",
            "[s.request.seed ^ row for row, s in enumerate(sequences)]",
        ),
    ),
    "position-of-the-cache": _mutant(
        "sampler",
        "The noise depends on how much of the prompt was cached",
        ("[chunk.stop for chunk in chunks]", "[c.stop - c.sequence.cached for c in chunks]"),
    ),
    "position-of-the-batch": _mutant(
        "sampler",
        "All rows draw with the noise of the first one's position",
        ("[chunk.stop for chunk in chunks]", "[chunks[0].stop for chunk in chunks]"),
    ),
    "parameters-of-others": _mutant(
        "sampler",
        "Parameters are kept while the number of sequences stays the same",
        ("if sequences != self._known:", "if len(sequences) != len(self._known):"),
    ),
    "penalties-without-prompt": _mutant(
        "sampler",
        "Penalties forget the prompt",
        ("prompts = [s.request.prompt if", "prompts = [NONE if"),
    ),
    "penalties-without-output": _mutant(
        "sampler",
        "Penalties forget the output",
        ("outputs = [s.output if", "outputs = [NONE if"),
    ),
    "penalties-of-the-first": _mutant(
        "sampler",
        "Penalties are applied where the first request asks for them",
        ("if not any(p.penalised for p in params):", "if not params[0].penalised:"),
    ),
    "greedy-for-all": _mutant(
        "sampler",
        "One greedy request makes its batch mates greedy",
        ("if all(s.request.params.temperature == 0", "if any(s.request.params.temperature == 0"),
    ),
    "top-k-off-is-one": _mutant(
        "sampler",
        "top_k -1 keeps one token",
        ("if p.top_k > 0 else OFF", "if p.top_k > 0 else 1"),
    ),
    # Ends
    "stop-ignored-in-prefill": _mutant(
        "engine",
        "A stop id is not seen in the token that a prompt's last chunk gives",
        ("if token in params.stop_ids:", "if token in params.stop_ids and sequence.generated > 1:"),
    ),
    "stop-ignored-with-eos": _mutant(
        "engine",
        "ignore_eos ignores stop ids too",
        ("if token in params.stop_ids:", "if token in params.stop_ids and not params.ignore_eos:"),
    ),
    "eos-not-ignored": _mutant(
        "engine",
        "ignore_eos is ignored",
        ("if not params.ignore_eos and token in", "if token in"),
    ),
    "one-token-more": _mutant(
        "scheduler",
        "One token more is said than max_tokens",
        ("self.length == len(self._tokens)", "self.length > len(self._tokens)"),
    ),
    "no-number-is-a-token": _mutant(
        "engine",
        "Logits that are NaN give token -1",
        ("if token < 0:", "if token < -1:"),
    ),
    "cancelled-but-running": _mutant(
        "engine",
        "A cancelled request stays in the line",
        (
            "        self.scheduler.remove(sequence)\n",
            "        if reason != CANCELLED:\n            self.scheduler.remove(sequence)\n",
        ),
    ),
}


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Run the block with the defect in it."""
    module = importlib.import_module(f"yaie.engine.{mutant.file}")
    assert module.__file__ is not None
    text = Path(module.__file__).read_text()
    for find, replace in mutant.edits:
        assert text.count(find) == 1, f"{find!r} stands {text.count(find)} times in {mutant.file}"
        text = text.replace(find, replace)
    spoilt = types.ModuleType(module.__name__)
    exec(compile(text, module.__file__, "exec"), spoilt.__dict__)
    theirs = dict(_functions(spoilt))
    saved = {name: f.__code__ for name, f in _functions(module)}
    try:
        for name, function in _functions(module):
            function.__code__ = theirs[name].__code__
        yield
    finally:
        for name, function in _functions(module):
            function.__code__ = saved[name]


def _functions(module: Any) -> Iterator[tuple[str, types.FunctionType]]:
    """The functions of a module and the methods of its classes, by qualified name."""
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        members = vars(value).values() if isinstance(value, type) else [value]
        for member in members:
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if (
                isinstance(function, types.FunctionType)
                and "<" not in function.__code__.co_filename
            ):
                yield function.__qualname__, function


@dataclass(frozen=True)
class Fate:
    """How many programs it took to find a mutant, and what was wrong; ``found_by`` is a hand-made
    test where no program found it."""

    programs: int
    found_by: str


def hunt(mutant: Mutant, programs: list[Any], by_hand: dict[str, Any]) -> Fate | None:
    """Run programs, then tests made by hand, until one fails. None: it survives."""
    from engine_programs import assert_laws, run

    with planted(mutant):
        for number, program in enumerate(programs, 1):
            try:
                assert_laws(run(program))
            except Exception as error:
                return Fate(number, _said(error))
        for name, test in by_hand.items():
            try:
                test()
            except Exception:
                return Fate(len(programs), name)
    return None


def _said(error: Exception) -> str:
    """What was wrong, in a line: the message, or the law that does not hold."""
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    law = traceback.extract_tb(error.__traceback__)[-1].line or ""
    line = kind + (str(error).strip() or law.removeprefix("assert ")).splitlines()[0]
    return (line if len(line) < 80 else line[:77] + "...").replace("|", "\\|")


def drawn(n: int) -> list[Any]:
    """``n`` programs that Hypothesis draws, always the same: those with many commands, little room,
    and kernels that are fast on a CPU, where defects show soonest."""
    return [best for number in range(n) if (best := _longest(number)) is not None]


def _longest(number: int) -> Any:
    """The program with most commands of a few dozen."""
    from engine_programs import programs
    from hypothesis import HealthCheck, Phase, given, seed, settings

    kept: list[Any] = []

    @seed(number)
    @settings(
        max_examples=30,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(programs)
    def keep(program: Any) -> None:
        if program.spare <= 3 and not program.kernels:
            kept.append(program)

    keep()
    return max(kept, key=lambda program: len(program.commands), default=None)


def main() -> int:
    """Print the table; exit with 1 where a mutant survives."""
    import torch
    from test_engine_laws import BY_HAND

    torch.set_num_threads(1)
    programs, fates = drawn(PROGRAMS), {}
    print("| mutant | defect | programs | what is seen first |\n|---|---|---:|---|")
    for name, mutant in MUTANTS.items():
        fate = fates[name] = hunt(mutant, programs, BY_HAND)
        found = "survives | " if fate is None else f"{fate.programs} | {fate.found_by}"
        print(f"| `{name}` | {mutant.what} | {found} |", flush=True)
    return int(None in fates.values())


PROGRAMS = 25
"""How many programs a mutant may survive before the tests made by hand."""

if __name__ == "__main__":
    sys.exit(main())
