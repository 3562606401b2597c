"""The header of a GGUF file, walked before a library believes it: every length must fit into the file.

magic  version  n_tensors  n_pairs    then the pairs:  key  type  value
                                      an array's value:  type  length  values
"""

import mmap
import struct
from pathlib import Path

from workbench.errors import CheckpointError

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# The least that a pair (an empty key, its type and one byte) and a tensor's description can take.
_PAIR_BYTES, _TENSOR_BYTES = 13, 24
# The library visits the values of arrays one by one. The largest vocabularies, with scores, types and
# merges, come to under two million.
MAX_ARRAY_VALUES = 4_000_000


def check_header(path: Path) -> None:
    """Walk the key-value pairs of a GGUF file without building anything of them.

    Raises:
        CheckpointError: not GGUF, or a count or length that the file cannot hold.
    """
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise CheckpointError(f"{path} is not a GGUF file: it does not begin with 'GGUF'")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                _Walk(data).header()
            except (struct.error, CheckpointError) as error:
                raise CheckpointError(
                    f"{path} is not a whole GGUF file: {error}. Fetch it again"
                ) from error


class _Walk:
    """A position in the file, moved over one value after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.n_values = data, len(_MAGIC), 0
        # A file of the other byte order has its version in the upper half.
        self.order = "<"
        if self.number("I") & 0xFFFF == 0:
            self.order = ">"

    def header(self) -> None:
        """All counts and all pairs."""
        n_tensors, n_pairs = self.number("Q"), self.number("Q")
        self.fits("tensors", n_tensors, _TENSOR_BYTES)
        self.fits("key-value pairs", n_pairs, _PAIR_BYTES)
        for _ in range(n_pairs):
            self.skip("letters of a key", self.number("Q"), 1)
            self.value(self.number("I"))

    def value(self, kind: int) -> None:
        """One value; an array's are plain."""
        if kind != _ARRAY:
            self.plain(kind, 1)
            return
        kind, length = self.number("I"), self.number("Q")
        if kind == _ARRAY:
            raise CheckpointError("it nests arrays in arrays, which no model needs")
        self.n_values += length
        self.plain(kind, length)
        if self.n_values > MAX_ARRAY_VALUES:
            raise CheckpointError(
                f"its arrays hold over {MAX_ARRAY_VALUES:,} values, more than any vocabulary needs"
            )

    def plain(self, kind: int, count: int) -> None:
        """Strings or numbers, one after the other."""
        if kind == _STRING:
            self.fits("strings", count, 8)
            for _ in range(count):
                self.skip("letters of a string", self.number("Q"), 1)
        elif kind in _SCALAR_BYTES:
            self.skip("values", count, _SCALAR_BYTES[kind])
        else:
            raise CheckpointError(f"it has a value of the unknown type {kind}")

    def number(self, letter: str) -> int:
        """The next whole number, of `struct`'s type."""
        value: int = struct.unpack_from(self.order + letter, self.data, self.at)[0]
        self.at += struct.calcsize(self.order + letter)
        return value

    def skip(self, what: str, count: int, size: int) -> None:
        """Pass over values of a fixed size."""
        self.fits(what, count, size)
        self.at += count * size

    def fits(self, what: str, count: int, size: int) -> None:
        """Refuse a count that the rest of the file cannot hold."""
        left = len(self.data) - self.at
        if count * size > left:
            raise CheckpointError(f"it claims {count:,} {what} where {left:,} bytes are left")
