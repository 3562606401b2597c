"""What `workbench why` prints: where a head looks, the score of one key, and the parts that make it."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.errors import PromptError
from workbench.figures.tokens import visible
from workbench.paths.pairs import MEAN, ScoreParts, Shares
from workbench.paths.query_key import QueryKey

# From this attention on, another key than the first counts as looked at.
LOOKED_AT = 0.1
WIDTH = 96
# Sizes of all pairs over the size of their sum, from which on a single pair means little.
CANCELLING = 3.0
MEANING = {
    "direct": "neither side was written by a head or an MLP",
    "Q": "the query alone was: Q-composition",
    "K": "the key alone was: K-composition",
    "both": "both sides were",
}


def pattern_of(maps: QueryKey) -> Float[np.ndarray, "query key"]:
    """Where the head looks."""
    head = maps.head
    pattern: Float[np.ndarray, "query key"] = (
        maps.frozen.run.pattern(head.layer)[0, head.head].float().cpu().numpy()
    )
    return pattern


def chosen_key(maps: QueryKey, query: int) -> tuple[int, str]:
    """The key that a query looks at most, and why it: not the first, a resting place, where another counts.

    Raises:
        PromptError: no such position.
    """
    pattern = pattern_of(maps)
    if not -len(pattern) <= query < len(pattern):
        last = len(pattern) - 1
        raise PromptError(
            f"no position {query}: the prompt's are 0 to {last}, or -{last + 1} to -1"
        )
    row = pattern[query].copy()
    best = int(row.argmax())
    if best == 0 and len(row) > 1:
        other = 1 + int(row[1:].argmax())
        if row[other] > LOOKED_AT:
            return other, "the largest attention behind position 0"
    return best, "the largest attention"


def versus_of(text: str | None) -> int | str | None:
    """The other key: a position, or "mean"; "none" is none."""
    if text is None or text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        if text == MEAN:
            return MEAN
    raise PromptError(f"--versus takes another key's position, 'mean' or 'none', not {text[:40]!r}")


def token_lines(tokens: tuple[str, ...], query: int, key: int) -> Iterator[str]:
    """The prompt by position, cut to lines; `[ ]` around the query, `< >` around the key."""
    marks = {query: "[{}]", key: "<{}>"} if query != key else {query: "[<{}>]"}
    shown = [
        marks.get(pos, "{}").format(f"{pos}:{visible(token)}") for pos, token in enumerate(tokens)
    ]
    line = ""
    for word in shown:
        if line and len(line) + len(word) + 1 > WIDTH:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
    yield line


def score_lines(maps: QueryKey, found: ScoreParts, reason: str) -> Iterator[str]:
    """What was chosen, the number with its residual, and what of it softmax does not see."""
    places = [f"{pos} {visible(found.str_tokens[pos])!r}" for pos in (found.query, found.key)]
    yield f"{found.model_name} head {found.head}: query {places[0]}, key {places[1]} ({reason})"
    score = float(maps.scores[found.query, found.key])
    yield f"attention {found.attention:.3f}, score {score:+.4f}{_against(found)}"
    yield (
        f"{found.values.size:,} pairs sum to {found.total:+.4f} within {abs(found.residual):.1e}; in sizes "
        f"they come to {found.absolute:.4g}, {found.cancellation:.3g} × that"
    )
    if found.versus is None:
        pairs = zip(found.key_parts, found.is_constant, strict=True)
        same = ", ".join(part.label for part, is_constant in pairs if is_constant)
        yield f"the same for all keys, so unseen by softmax: {found.constant:+.4f} ({same or 'nothing'})"
    if found.cancellation > CANCELLING:
        yield "beware: the pairs cancel, so a single one means little; try --by layer or --by kind"


def _against(found: ScoreParts) -> str:
    if found.versus is None:
        return ""
    if found.versus == MEAN:
        return f"; minus the mean over the other keys {found.total:+.4f}"
    token = visible(found.str_tokens[int(found.versus)])
    return f"; minus that of key {found.versus} {token!r} {found.total:+.4f}"


def share_rows(found: ScoreParts) -> pd.DataFrame:
    """The four kinds of pairs."""
    kinds = found.kinds
    sizes = [float(np.abs(found.values[kinds == kind]).sum()) for kind in Shares._fields]
    return pd.DataFrame(
        {
            "pairs": list(MEANING),
            "value": list(found.shares),
            "in sizes": sizes,
            "": list(MEANING.values()),
        }
    )


def side_rows(found: ScoreParts, top: int) -> pd.DataFrame:
    """What enters through the query beside what enters through the key, the largest of each first."""
    sides = [found.side(side, top)[["part", "value"]] for side in ("query", "key")]
    frame = pd.concat(sides, axis=1)
    frame.columns = pd.Index(["through the query", "query adds", "through the key", "key adds"])
    return frame.fillna({"through the query": "", "through the key": ""})


def pair_rows(found: ScoreParts, top: int) -> pd.DataFrame:
    """The largest pairs and the rest of each sign."""
    frame = found.top(top)
    frame[["key", "composition"]] = frame[["key", "composition"]].fillna("")
    share = 100 * frame["value"] / found.total if found.total else np.nan
    return frame.assign(**{"share %": np.round(share, 1)})
