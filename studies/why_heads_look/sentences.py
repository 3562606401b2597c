"""Sentences of two names in which one comes back, and what is expected next is the other.

    Then Mary and John went to the store. John gave a drink to …        IO = Mary, S = John: S1, then S2

Where a third name stands instead of S2, neither of the first two is expected more than the other.
(Wang et al. 2023, "Interpretability in the Wild", §3.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PLACES = {"store": "drink", "park": "ball", "school": "book", "office": "letter"}


@dataclass(frozen=True)
class Drawn:
    """What sentences are made of."""

    templates: tuple[str, ...]
    names: tuple[str, ...]


SELECTION = Drawn(
    (
        "Then {a} and {b} went to the {place}. {c} gave a {thing} to",
        "When {a} and {b} got to the {place}, {c} handed a {thing} to",
        "After {a} and {b} left the {place}, {c} gave a {thing} to",
        "While {a} and {b} were at the {place}, {c} passed a {thing} to",
    ),
    ("Tom", "Anna", "James", "Sarah", "David", "Laura", "Peter", "Emma"),
)
HELD_OUT = Drawn(
    (
        "When {a} and {b} went to the {place}, {c} gave a {thing} to",
        "Then {a} and {b} had a long talk at the {place}. {c} gave a {thing} to",
        "Today {a} and {b} met at the {place} again, and {c} sent a {thing} to",
        "Friends of {a} and {b} waited at the {place}. Then {c} brought a {thing} to",
    ),
    ("Mary", "John", "Paul", "Kate", "Mark", "Lucy", "Daniel", "Alice"),
)


@dataclass(frozen=True)
class Sentence:
    """One prompt.

    Args:
        s: the name that comes back, or would have.
        third: the name that stands where S2 would; None where S comes back.
    """

    text: str
    io: str
    s: str
    third: str | None

    def places(self, str_tokens: Sequence[str]) -> dict[str, int]:
        """Where the names stand: IO, S1, and S2 or the third name, which is called S2 too."""
        tokens = list(str_tokens)
        again = self.s if self.third is None else self.third
        last = len(tokens) - 1 - tokens[::-1].index(f" {again}")
        return {"IO": tokens.index(f" {self.io}"), "S1": tokens.index(f" {self.s}"), "S2": last}


def sentences(drawn: Drawn, n: int, seed: int, *, third: bool = False) -> list[Sentence]:
    """`n` prompts: templates and places in turn, names at random, IO first in every second round."""
    rng = np.random.default_rng(seed)
    places = list(PLACES.items())
    found = []
    for index in range(n):
        template = drawn.templates[index % len(drawn.templates)]
        place, thing = places[(index // len(drawn.templates) + index) % len(places)]
        io, s, other = (str(name) for name in rng.choice(drawn.names, 3, replace=False))
        is_io_first = (index + index // len(drawn.templates)) % 2 == 0
        a, b = (io, s) if is_io_first else (s, io)
        text = template.format(a=a, b=b, c=other if third else s, place=place, thing=thing)
        found.append(Sentence(text, io, s, other if third else None))
    return found
