"""The text that probes read: whole documents, none of them in both halves of a split, no row across two.

read_data("stdlib")          source files of Python's standard library that no bundled model was trained on
read_data("texts/")          a folder: one document a file
read_data("pile.jsonl")      one document a line, {"text": …} or a plain string
read_data("pile.parquet")    one document a row, column `text`
read_data("prompts.txt")     one prompt a line

Prompts are read from their starts, all cut to one length, at which most tokens are read while at most a quarter
of the prompts is left out as shorter; `told` hears how many were.
"""

import hashlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
# No probe of text reads less, special tokens counted.
SHORTEST_PROMPT = 4
# Of prompts that are long enough so large a share is read, however unequal they are.
KEPT_PROMPTS = 0.75


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
        is_prompts: whether every document is a prompt, to be read from its start.
        told: hears in words which prompts were read, each time that rows of them are made.
    """

    documents: tuple[str, ...]
    name: str
    is_prompts: bool = False
    told: Callable[[str], Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not any(document.strip() for document in self.documents):
            raise ConfigError(f"there is no text in {self.name}: give documents that are not empty")

    @cached_property
    def hash(self) -> str:
        """Equal for equal documents in equal order, whatever they are called; 16 hexadecimal digits.

        Prompts are cut otherwise than texts, so the same lines have another hash as prompts.
        """
        digest = hashlib.blake2b(digest_size=8, person=b"prompts" if self.is_prompts else b"")
        for document in self.documents:
            text = document.encode("utf-8", "surrogatepass")
            digest.update(len(text).to_bytes(8, "little") + text)
        return digest.hexdigest()

    @property
    def facts(self) -> DataFacts:
        """Sizes and hash."""
        n_characters = sum(map(len, self.documents))
        return DataFacts(len(self.documents), n_characters, self.hash)

    @cached_property
    def nbytes(self) -> int:
        """What the documents take of the memory of every process that holds them."""
        return sum(map(sys.getsizeof, self.documents))

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
        return ProbeData(picked, f"{self.name}, {half}", self.is_prompts, self.told)

    def tokens(
        self, model: Any, n_prompts: int, n_tokens: int, seed: int, at_least: int = SHORTEST_PROMPT
    ) -> "Int[Tensor, 'prompt pos']":
        """Rows of `n_tokens`, special tokens among them, each from one document; no text is in two rows.

        Fewer than `n_prompts` where the data has no more. Documents are taken in turn, in random order.
        Of prompts, rows are as long as `common_length` says: `n_tokens` at most, `at_least` at least.

        Raises:
            UnsupportedError: a model without text, too short a context, or no document that gives a row.
        """
        import torch

        rows = self._rows(model, n_prompts, n_tokens, seed, at_least)
        return torch.tensor([row for row, _ in rows])

    def documents_of_tokens(
        self, model: Any, n_prompts: int, n_tokens: int, seed: int, at_least: int = SHORTEST_PROMPT
    ) -> "Int[np.ndarray, ' prompt']":
        """The document from which each row of `tokens` comes: rows of one are not independent."""
        rows = self._rows(model, n_prompts, n_tokens, seed, at_least)
        return np.array([document for _, document in rows])

    def _rows(
        self, model: Any, n_prompts: int, n_tokens: int, seed: int, at_least: int
    ) -> list[tuple[list[int], int]]:
        if getattr(model, "tokenizer", None) is None:  # a perceptron has not even none
            raise UnsupportedError(f"{model.name} reads no text: it has no tokenizer")
        if not 2 <= n_tokens <= model.cfg.n_ctx:
            raise UnsupportedError(
                f"{model.name} reads 2 to {model.cfg.n_ctx} tokens; {n_tokens} were asked for"
            )
        rng = np.random.default_rng(seed)
        order = [int(index) for index in rng.permutation(len(self.documents))]
        if self.is_prompts:
            rows, reason = self._prompts(model, order, n_tokens, min(at_least, n_tokens))
            rows = rows[:n_prompts]
        else:
            cutters = {index: self._cut(model.tokenizer, index, n_tokens, rng) for index in order}
            rows, reason = _in_turn(cutters, n_prompts)
            reason = reason or f"no document of {self.name} has {n_tokens} tokens"
        if not rows:
            raise UnsupportedError(f"{model.name} cannot read {self.name}: {reason}")
        if self.is_prompts and self.told is not None:
            read = f"{len(rows)} of {len(self.documents)} prompts read"
            self.told(f"{self.name}: {read} at {len(rows[0][0])} tokens{reason}")
        return rows

    def _prompts(
        self, model: Any, order: Sequence[int], n_tokens: int, at_least: int
    ) -> tuple[list[tuple[list[int], int]], str]:
        """Starts of prompts, all of one length; and what became of the others, or why there are none."""
        before, after = model.tokenizer.special_around()
        at_least = max(at_least, len(before) + 1 + len(after))
        whole, unread = {}, []
        for index in order:
            try:
                ids = model.tokenizer.encode(self.documents[index], add_special_tokens=False)
            except PromptError as error:
                unread.append(str(error))
            else:
                whole[index] = [*before, *ids][: n_tokens - len(after)] + after
        lengths = list(map(len, whole.values()))
        if not any(length >= at_least for length in lengths):
            longest = f"no prompt has {at_least} tokens; the longest has {max(lengths, default=0)}"
            return [], longest if whole else unread[0]
        length = common_length(lengths, at_least)
        rows = [
            (ids[: length - len(after)] + after, index)
            for index, ids in whole.items()
            if len(ids) >= length
        ]
        others = f"; {len(whole) - len(rows)} left out as shorter" if len(whole) > len(rows) else ""
        others += f"; {len(unread)} left out as unreadable: {unread[0]}" if unread else ""
        return rows, others

    def _cut(
        self, tokenizer: Any, index: int, n_tokens: int, rng: np.random.Generator
    ) -> Iterator[list[int]]:
        """Rows of one document, from a random line onwards."""
        before, after = tokenizer.special_around()
        free = n_tokens - len(before) - len(after)
        text = self.documents[index]
        if free < 1:
            return
        for piece in _pieces(text, n_tokens * _CHARS_PER_TOKEN, rng):
            ids = tokenizer.encode(piece, add_special_tokens=False)
            for start in range(0, len(ids) - free + 1, free):
                yield [*before, *ids[start : start + free], *after]


def common_length(lengths: Sequence[int], at_least: int) -> int:
    """The length at which most tokens are read of prompts cut to it, shorter ones than that left out.

    Of those that have `at_least` so many, no more than a quarter is left out: a few long prompts do not oust
    the others, nor does a short one cut all the rest.
    """
    usable = sorted((length for length in lengths if length >= at_least), reverse=True)
    fewest = math.ceil(KEPT_PROMPTS * len(usable))
    kept = range(fewest, len(usable) + 1)
    return max((count * usable[count - 1], usable[count - 1]) for count in kept)[1]


def _in_turn(
    cutters: dict[int, Iterator[list[int]]], n_rows: int
) -> tuple[list[tuple[list[int], int]], str]:
    """Rows of documents by turns, and why one of them gave none; "" where all did or are too short."""
    rows: list[tuple[list[int], int]] = []
    reason = ""
    while cutters and len(rows) < n_rows:
        for index in list(cutters):
            try:
                rows.append((next(cutters[index]), index))
            except StopIteration:
                del cutters[index]
            except PromptError as error:
                reason = str(error)
                del cutters[index]
            if len(rows) == n_rows:
                break
    return rows, reason


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
