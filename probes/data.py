"""The text that probes read: whole documents, none of them in both halves of a split, no row across two.

read_data("stdlib")          source files of Python's standard library that no bundled model was trained on
read_data("texts/")          a folder: one document a file
read_data("pile.jsonl")      one document a line, {"text": …} or a plain string
read_data("pile.parquet")    one document a row, column `text`
read_data("prompts.txt")     one prompt a line
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from workbench.errors import ConfigError, PromptError, UnsupportedError

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

# Four to five characters make a token of English or Python; more are cut than are needed.
_CHARS_PER_TOKEN = 8
_LONGEST_PIECE = 20_000


class DataFacts(NamedTuple):
    """What a cost may depend on."""

    n_documents: int
    n_characters: int
    hash: str


class Split(NamedTuple):
    """Two halves that share no document."""

    train: "ProbeData"
    held_out: "ProbeData"


@dataclass(frozen=True)
class ProbeData:
    """Documents, none of them empty.

    Args:
        name: how it was asked for.
        is_prompts: whether every document is a prompt, to be read from its start and as a whole.
    """

    documents: tuple[str, ...]
    name: str
    is_prompts: bool = False

    def __post_init__(self) -> None:
        if not any(document.strip() for document in self.documents):
            raise ConfigError(f"there is no text in {self.name}: give documents that are not empty")

    @cached_property
    def hash(self) -> str:
        """Equal for equal documents in equal order, whatever they are called; 16 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=8)
        for document in self.documents:
            text = document.encode("utf-8", "surrogatepass")
            digest.update(len(text).to_bytes(8, "little") + text)
        return digest.hexdigest()

    @property
    def facts(self) -> DataFacts:
        """Sizes and hash."""
        n_characters = sum(map(len, self.documents))
        return DataFacts(len(self.documents), n_characters, self.hash)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The documents, where each is a prompt; else nothing."""
        return self.documents if self.is_prompts else ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values: it travels to other processes as JSON."""
        return {"documents": self.documents, "name": self.name, "is_prompts": self.is_prompts}

    def split(self, seed: int, share: float = 0.25) -> Split:
        """Documents to fit on, and about a `share` of them (at least one) to test on.

        Raises:
            UnsupportedError: a single document, which cannot be on both sides.
        """
        count = len(self.documents)
        if count < 2:
            raise UnsupportedError(f"{self.name} has one document: two or more can be split")
        order = np.random.default_rng(seed).permutation(count)
        n_held_out = min(count - 1, max(1, round(share * count)))
        held_out, train = sorted(order[:n_held_out]), sorted(order[n_held_out:])
        return Split(self._of(train, "train"), self._of(held_out, "held out"))

    def _of(self, chosen: Sequence[int], half: str) -> "ProbeData":
        picked = tuple(self.documents[index] for index in chosen)
        return ProbeData(picked, f"{self.name}, {half}", self.is_prompts)

    def tokens(
        self, model: Any, n_prompts: int, n_tokens: int, seed: int
    ) -> "Int[Tensor, 'prompt pos']":
        """Rows of `n_tokens`, special tokens among them, each from one document; no text is in two rows.

        Fewer than `n_prompts` where the data has no more. Documents are taken in turn, in random order.

        Raises:
            UnsupportedError: a model without text, too short a context, or no document that gives a row.
        """
        import torch

        rows = [row for row, _ in self._rows(model, n_prompts, n_tokens, seed)]
        return torch.tensor(rows)

    def documents_of_tokens(
        self, model: Any, n_prompts: int, n_tokens: int, seed: int
    ) -> "Int[np.ndarray, ' prompt']":
        """The document from which each row of `tokens` comes: rows of one are not independent."""
        rows = self._rows(model, n_prompts, n_tokens, seed)
        return np.array([document for _, document in rows])

    def _rows(
        self, model: Any, n_prompts: int, n_tokens: int, seed: int
    ) -> list[tuple[list[int], int]]:
        if getattr(model, "tokenizer", None) is None:  # a perceptron has not even none
            raise UnsupportedError(f"{model.name} reads no text: it has no tokenizer")
        if not 2 <= n_tokens <= model.cfg.n_ctx:
            raise UnsupportedError(
                f"{model.name} reads 2 to {model.cfg.n_ctx} tokens; {n_tokens} were asked for"
            )
        rng = np.random.default_rng(seed)
        order = [int(index) for index in rng.permutation(len(self.documents))]
        cutters = {index: self._cut(model.tokenizer, index, n_tokens, rng) for index in order}
        rows: list[tuple[list[int], int]] = []
        reason = f"no document of {self.name} has {n_tokens} tokens"
        while cutters and len(rows) < n_prompts:
            for index in list(cutters):
                try:
                    rows.append((next(cutters[index]), index))
                except StopIteration:
                    del cutters[index]
                except PromptError as error:
                    reason = str(error)
                    del cutters[index]
                if len(rows) == n_prompts:
                    break
        if not rows:
            raise UnsupportedError(f"{model.name} cannot read {self.name}: {reason}")
        return rows

    def _cut(
        self, tokenizer: Any, index: int, n_tokens: int, rng: np.random.Generator
    ) -> Iterator[list[int]]:
        """Rows of one document, from a random line onwards."""
        before, after = tokenizer.special_around()
        free = n_tokens - len(before) - len(after)
        text = self.documents[index]
        if free < 1:
            return
        if self.is_prompts:
            ids = tokenizer.encode(text, add_special_tokens=False)
            if len(ids) >= free:
                yield [*before, *ids[:free], *after]
            return
        for piece in _pieces(text, n_tokens * _CHARS_PER_TOKEN, rng):
            ids = tokenizer.encode(piece, add_special_tokens=False)
            for start in range(0, len(ids) - free + 1, free):
                yield [*before, *ids[start : start + free], *after]


def _pieces(text: str, size: int, rng: np.random.Generator) -> Iterator[str]:
    """A document from the start of a random line to its end, then what stood before, in pieces."""
    newline = text.find("\n", int(rng.integers(len(text))) if text else 0)
    start = newline + 1 if 0 <= newline < len(text) - size else 0
    size = min(size, _LONGEST_PIECE)
    for part in (text[start:], text[:start]):
        for at in range(0, len(part), size):
            # What is blank has no tokens in some vocabularies.
            if part[at : at + size].strip():
                yield part[at : at + size]


def read_data(spec: str) -> ProbeData:
    """The documents that a name or a path stands for.

    Raises:
        ConfigError: nothing there, a file that is broken or of another kind, or no text in it.
    """
    from probes.data_files import read_documents

    documents, is_prompts = read_documents(spec)
    return ProbeData(documents, spec, is_prompts)
