"""From text to token ids and back, by the tokenizer.json of a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer puts where bytes are no whole character (yet)."""


class Text:
    """The tokenizer of a folder. Errors: ValueError, if there is none or it cannot be read."""

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder, "tokenizer.json")
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError:
            needs = "reading a tokenizer needs tokenizers: pip install tokenizers"
            raise ValueError(needs) from None
        if not path.exists():
            raise ValueError(f"{path}: is missing; give token ids instead of text")
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{path}: is no readable tokenizer: {error}") from None

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with the tokens that the model expects around it."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids, without tokens that are no text."""
        text: str = self._tokenizer.decode(ids)
        return text


class Stream:
    """The text of ids that come one by one. A character is shown once all its bytes are there."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._ids: list[int] = []
        self._shown = ""  # of the ids that are kept
        self._keep = 0

    def push(self, token: int) -> str:
        """What one more token adds. How a token reads may depend on the one before it, so that
        the last shown run of ids is decoded again with it."""
        self._ids.append(token)
        text = self._text.decode(self._ids[self._keep :])
        if text.endswith(BROKEN):
            return ""
        return self._show(text)

    def finish(self) -> str:
        """What is left, broken characters too."""
        return self._show(self._text.decode(self._ids[self._keep :]))

    def _show(self, text: str) -> str:
        new = text[len(self._shown) :]
        if new:
            self._keep = len(self._ids) - 1
            self._shown = self._text.decode(self._ids[self._keep :])
        return new
