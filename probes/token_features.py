"""What can be said by rule of every token of a text, as whole numbers for a classifier.

Features of the token itself, the same wherever it stands: digit, capital, kind (by its first letter, Python's
keywords apart). Features of where it stands: kind of the next token, depth of brackets, depth of indentation,
position (eighths).
"""

import keyword
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

KINDS = ("blank", "keyword", "name", "number", "bracket", "quote", "other")
OF_TOKEN = ("digit", "capital", "kind")
OF_PLACE = ("next kind", "bracket depth", "indentation", "position")
DEEPEST, N_PARTS, INDENT = 3, 8, 4
OPEN, CLOSED = "([{", ")]}"


def kind_of(token: str) -> int:
    """Which of KINDS a token is, by rule."""
    word = token.strip()
    if not word:
        return KINDS.index("blank")
    if keyword.iskeyword(word):
        return KINDS.index("keyword")
    first = word[0]
    if first.isdigit():
        return KINDS.index("number")
    if first.isalpha() or first == "_":
        return KINDS.index("name")
    if first in OPEN + CLOSED:
        return KINDS.index("bracket")
    return KINDS.index("quote" if first in "'\"`" else "other")


def labels(tokens: Sequence[str]) -> dict[str, Int[np.ndarray, " pos"]]:
    """Every feature of every token but the last, which has no next one."""
    kinds = np.array([kind_of(token) for token in tokens])
    depth, indentation = _depths(tokens)
    at = np.arange(len(tokens) - 1)
    return {
        "digit": np.array([any(c.isdigit() for c in token) for token in tokens[:-1]], dtype=int),
        "capital": np.array([any(c.isupper() for c in token) for token in tokens[:-1]], dtype=int),
        "kind": kinds[:-1],
        "next kind": kinds[1:],
        "bracket depth": depth[:-1],
        "indentation": indentation[:-1],
        "position": at * N_PARTS // (len(tokens) - 1),
    }


def _depths(tokens: Sequence[str]) -> tuple[Int[np.ndarray, " pos"], Int[np.ndarray, " pos"]]:
    """Open brackets, and fours of spaces at the start of the line, after each token; both up to DEEPEST."""
    open_now = spaces = 0
    starts_line = True
    depths, indents = [], []
    for token in tokens:
        for char in token:
            if char in OPEN:
                open_now += 1
            elif char in CLOSED:
                open_now = max(0, open_now - 1)
            if char == "\n":
                starts_line, spaces = True, 0
            elif starts_line and char in " \t":
                spaces += INDENT if char == "\t" else 1
            else:
                starts_line = False
        depths.append(min(open_now, DEEPEST))
        indents.append(min(spaces // INDENT, DEEPEST))
    return np.array(depths), np.array(indents)
