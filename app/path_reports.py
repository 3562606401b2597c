"""What `workbench paths` prints: what a list of paths amounts to, and the list itself."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from workbench.figures.tokens import visible
from workbench.paths.feeds import Feeds
from workbench.paths.orders import OrderSpectrum
from workbench.paths.search import PathList
from workbench.paths.verify import Check

# Tokens named beside a path, and the share of its size from which one is.
TOKENS, NAMED = 2, 0.1
ORDERS = 7
ENDS = {
    "all": "every path was looked at",
    "count": "no subtotal left open is half as large as the smallest listed",
    "threshold": "no subtotal left open is as large as asked for",
    "coverage": "everything else comes to no more than was allowed, in sizes",
    "limit": "the limit was reached: larger paths may be left",
}


def path_lines(found: PathList) -> Iterator[str]:
    """The number, how much of it the listed paths are, how the search ended, and what to beware of."""
    yield f"{found.label}: {found.total:.4f} {found.unit} in {_count(found.n_paths)} paths"
    bias = f" + {found.bias:.4f} (bias)" if found.bias else ""
    yield (
        f"{len(found.paths)} listed {found.listed:.4f} + all others {found.remainder:.4f}{bias}; "
        f"the books close within {abs(found.residual):.1e}"
    )
    yield f"{found.n_expanded:,} partial paths taken apart: {ENDS[found.ended_by]}"
    if found.warning:
        yield f"beware: {found.warning}"


def order_line(spectrum: OrderSpectrum) -> str:
    """The sums of all paths of each order, as far as a line goes, and how much they cancel."""
    orders = spectrum.orders
    shown = "  ".join(f"{order}: {value:+.3g}" for order, value in enumerate(orders[:ORDERS]))
    rest = orders[ORDERS:]
    more = f"  more: {rest.sum():+.3g}" if len(rest) else ""
    cancelling = f" (sizes {spectrum.cancellation:.3g} × the sum)"
    return f"by order{cancelling}  {shown}{more}"


def path_rows(found: PathList, checks: Sequence[Check] = ()) -> pd.DataFrame:
    """The listed paths with the tokens that they start from; with what taking each out does, if checked."""
    frame = pd.DataFrame(
        {
            "path": [path.label for path in found.paths],
            "value": found.values,
            "share %": _percent(found.values, found.total),
        }
    )
    if checks:
        frame["frozen"] = [check.frozen for check in checks]
        frame["unfrozen"] = [check.unfrozen for check in checks]
    frame["from"] = [_tokens(found, row) for row in range(len(found.paths))]
    return frame


def list_table(found: PathList, checks: Sequence[Check] = ()) -> pd.DataFrame:
    """The whole table of a list of paths, with its checks where there are any."""
    table = found.table()
    if not checks:
        return table
    more = pd.concat([check.table() for check in checks], ignore_index=True)
    return table.join(more[["frozen", "unfrozen", "error", "response"]])


def feed_lines(found: Feeds, total: float) -> Iterator[str]:
    """What a partial path comes to."""
    yield f"all paths … → {found.label}: {found.subtotal:.4f} of {total:.4f} {found.unit}"
    yield f"what enters sums to it within {abs(found.residual):.1e}"


def feed_rows(found: Feeds, top: int) -> pd.DataFrame:
    """The parts that add most, by size; the others as one row, so that the sum is kept."""
    order = np.argsort(-np.abs(found.values), kind="stable")
    rows = [(found.parts[index].label, found.values[index]) for index in order[:top]]
    if len(order) > top:
        rows.append((f"{len(order) - top} others", found.values[order[top:]].sum()))
    frame = pd.DataFrame(rows, columns=["enters", "value"])
    return frame.assign(**{"share %": _percent(frame["value"].to_numpy(), found.subtotal)})


def _tokens(found: PathList, row: int) -> str:
    """The tokens that a path mostly starts from, each with its part; constants start from none."""
    if found.paths[row].source.kind == "bias":
        return ""
    values = found.by_token[row]
    largest = np.argsort(-np.abs(values), kind="stable")[:TOKENS]
    named = [pos for pos in largest if abs(values[pos]) > NAMED * np.abs(values).sum()]
    return "  ".join(f"{visible(found.str_tokens[p])}@{p} {values[p]:+.2g}" for p in named)


def _percent(values: np.ndarray, whole: float) -> np.ndarray:
    return np.round(100 * values / whole, 1) if whole else np.full(len(values), np.nan)


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"{number:.2e}"
