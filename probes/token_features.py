"""What can be said by rule of every token of a text, as whole numbers for a classifier.

Features of the token itself, the same wherever it stands: digit, capital, kind (by its first letter, Python's
keywords apart). Features of where it stands: kind of the next token, depth of brackets, depth of indentation,
position (eighths). The two depths are those of the whole document: a row that is cut from its middle does not
say what was open before it.
"""

import keyword
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

KINDS = ("blank", "keyword", "name", "number", "bracket", "quote", "other")
OF_TOKEN = ("digit", "capital", "kind")
OF_DOCUMENT = ("bracket depth", "indentation")
OF_PLACE = ("next kind", *OF_DOCUMENT, "position")
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
    """Every feature that a row tells by itself, of every token but the last, which has no next one."""
    kinds = np.array([kind_of(token) for token in tokens])
    at = np.arange(len(tokens) - 1)
    return {
        "digit": np.array([any(c.isdigit() for c in token) for token in tokens[:-1]], dtype=int),
        "capital": np.array([any(c.isupper() for c in token) for token in tokens[:-1]], dtype=int),
        "kind": kinds[:-1],
        "next kind": kinds[1:],
        "position": at * N_PARTS // (len(tokens) - 1),
    }


def depths(document: str) -> dict[str, Int[np.ndarray, " end"]]:
    """Of OF_DOCUMENT, each after so many characters as the index says; both up to DEEPEST.

    A bracket counts where it has a partner, as a lone one in a string or a smile would count to the end; an
    indentation is fours of spaces, or tabs, at the start of the line.
    """
    found = (_open_brackets(document), _spaces_before(document) // INDENT)
    return {
        name: np.concatenate([[0], np.minimum(values, DEEPEST)])
        for name, values in zip(OF_DOCUMENT, found, strict=True)
    }


def _open_brackets(document: str) -> Int[np.ndarray, " char"]:
    steps = np.zeros(len(document), dtype=int)
    waiting: list[tuple[str, int]] = []
    n_waiting = dict.fromkeys(OPEN, 0)
    for match in re.finditer(r"[()\[\]{}]", document):
        bracket, at = match.group(), match.start()
        if bracket in OPEN:
            waiting.append((bracket, at))
            n_waiting[bracket] += 1
            continue
        wanted = OPEN[CLOSED.index(bracket)]
        while n_waiting[wanted]:
            opened, begun = waiting.pop()
            n_waiting[opened] -= 1
            if opened == wanted:
                steps[begun], steps[at] = 1, -1
                break
    return np.cumsum(steps)


def _spaces_before(document: str) -> Int[np.ndarray, " char"]:
    """Spaces at the start of each character's line, so far; a tab is INDENT of them."""
    chars = np.frombuffer(document.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    at = np.arange(len(chars))
    is_end, is_tab = chars == ord("\n"), chars == ord("\t")
    is_blank = is_tab | (chars == ord(" "))
    begun = np.maximum.accumulate(np.where(is_end, at, -1)) + 1
    inked = np.maximum.accumulate(np.where(is_end | is_blank, -1, at))
    widths = np.where(is_blank & (inked < begun), np.where(is_tab, INDENT, 1), 0)
    total = np.concatenate([[0], np.cumsum(widths)])
    spaces: Int[np.ndarray, " char"] = total[1:] - total[begun]
    return spaces
