"""Text to tokens and back, over a `tokenizers.Tokenizer`, with the checks that a hostile prompt needs.

Special tokens are added exactly as the model's own tokenizer.json adds them: nothing is decided here.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from workbench.errors import CheckpointError, PromptError

MAX_PROMPT_CHARS = 200_000
MAX_FILE_BYTES = 64 << 20


class Tokenizer:
    """A model's tokenizer.

    Args:
        backend: the tokenizer itself.
        source: what it is called in error messages.
    """

    def __init__(self, backend: tokenizers.Tokenizer, source: str = "tokenizer") -> None:
        self.backend, self.source = backend, source
        self.backend.no_padding()
        self.backend.no_truncation()
        self._texts: dict[
            int, str
        ] = {}  # by token; spelling one anew costs as much as a small layer

    @classmethod
    def from_file(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.json.

        Raises:
            CheckpointError: the file is missing, too large or not a tokenizer.
        """
        if not path.is_file():
            raise CheckpointError(f"no tokenizer.json in {path.parent}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointError(
                f"{path} is over {MAX_FILE_BYTES >> 20} MiB: no tokenizer is that large"
            )
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)), path.parent.name)
        except Exception as error:  # the Rust library raises bare Exception
            raise CheckpointError(f"{path} is not a tokenizer: {error}") from error

    @property
    def d_vocab(self) -> int:
        """Number of tokens, added ones included."""
        return self.backend.get_vocab_size()

    def special_around(self) -> tuple[list[int], list[int]]:
        """The special tokens that are put before and after every prompt."""
        added = self.backend.encode("", add_special_tokens=True).ids
        return added[:1], added[1:]

    def plain_ids(self) -> list[int]:
        """Every token id that stands for text: no special and no unknown token."""
        added = self.backend.get_added_tokens_decoder()
        special = {id for id, token in added.items() if token.special}
        special.update(*self.special_around())
        unknown = self._unknown_id()
        return [
            id for id in sorted(self.backend.get_vocab().values()) if id not in special | {unknown}
        ]

    def _unknown_id(self) -> int | None:
        unknown = getattr(self.backend.model, "unk_token", None)
        return None if unknown is None else self.backend.token_to_id(unknown)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text.

        Raises:
            PromptError: empty, too long, or characters that no token stands for.
        """
        check_text(text)
        encoding = self.backend.encode(text, add_special_tokens=add_special_tokens)
        unknown_id = self._unknown_id()
        if unknown_id in encoding.ids:
            start, end = encoding.offsets[encoding.ids.index(unknown_id)]
            raise PromptError(
                f"{self.source} has no token for {text[start:end][:20]!r} at character {start}"
            )
        # A model without unknown-token may drop what it cannot spell: nothing may vanish silently.
        covered = {at for start, end in encoding.offsets for at in range(start, end)}
        for at, char in enumerate(text):
            if at not in covered and char.isalnum():
                raise PromptError(f"{self.source} has no token for {char!r} at character {at}")
        if not covered:
            raise PromptError(f"{self.source} has no token for anything in {text[:20]!r}")
        return encoding.ids

    def str_tokens(self, ids: Sequence[int]) -> list[str]:
        """Each token as readable text: `" the"`, `"##ing"`, `"<|bos|>"`; part of a character as its bytes.

        Raises:
            PromptError: an id outside the vocabulary.
        """
        new = {int(token) for token in ids} - self._texts.keys()
        self._texts.update(zip(new, self._decoded(list(new)), strict=True))
        return [self._texts[int(token)] for token in ids]

    def _decoded(self, ids: list[int]) -> list[str]:
        pieces: list[str] = []
        for id in ids:
            piece = self.backend.id_to_token(id) if 0 <= id < 1 << 32 else None
            if piece is None:
                raise PromptError(f"no token {id}: {self.source} has {self.d_vocab}")
            pieces.append(piece)
        texts = self.backend.decode_batch([[id] for id in ids], skip_special_tokens=False)
        return [_readable(piece, text) for piece, text in zip(pieces, texts, strict=True)]


def _readable(piece: str, text: str) -> str:
    if re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
        return f"<{piece[3:5]}>"  # SentencePiece's spelling of one byte
    if "\ufffd" in text:
        return "".join(f"<{byte:02X}>" for byte in _bytes_of(piece)) or piece
    # WordPiece and SentencePiece decoders strip the marks that tell a word's start from its inside.
    if piece.startswith(("##", "▁")):
        return piece.replace("▁", " ")
    return text or piece


def _bytes_of(piece: str) -> bytes:
    """The bytes that a byte-level token stands for (GPT-2's printable alphabet, undone)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet |= {chr(256 + index): byte for index, byte in enumerate(others)}
    return bytes(alphabet[char] for char in piece if char in alphabet)


def check_text(text: str) -> None:
    """Refuse what is no prompt.

    Raises:
        PromptError: not text, empty, too long, with null characters or lone surrogates.
    """
    if not isinstance(text, str):
        raise PromptError(f"a prompt is text, not {type(text).__name__}")
    if not text:
        raise PromptError("the prompt is empty: type at least one character")
    if len(text) > MAX_PROMPT_CHARS:
        raise PromptError(
            f"the prompt has {len(text):,} characters; the limit is {MAX_PROMPT_CHARS:,}"
        )
    if "\0" in text:
        raise PromptError(
            f"the prompt has a null character at position {text.index(chr(0))}: remove it"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"the prompt is not valid Unicode at character {error.start}") from error
