"""The largest single paths from a source to a number: best first, with exact books of everything not listed.

A path is a source followed by components in rising order; its value is the source carried through the frozen
maps of its components alone. The paths of a model are the leaves of a tree that grows backwards from the end:
a node is a partial path, and expanding it (`workbench.paths.feeds`) gives the value of each path that starts
here and the exact subtotal of every longer partial path. The node with the largest |subtotal| is expanded next,
so at every moment

    Σ paths found + Σ subtotals left open + bias = the number

Terms of both signs cancel inside a subtotal: a small one may hide large paths. A search that stopped early is
therefore not certain to have found the largest paths, only honest about what it left; `is_complete` says
whether every path was looked at.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Path Expansion Trick".)
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.errors import ConfigError
from workbench.paths.directions import Direction
from workbench.paths.feeds import Feeds, Suffix, Suffixes, feeds
from workbench.paths.frontier import Books, Ends, counts
from workbench.paths.network import FrozenNetwork
from workbench.stream.parts import Part

__all__ = ["Feeds", "Path", "PathList", "feeds", "path_values", "top_paths"]

Progress = Callable[[int, int], None]
LIMIT = 2000
BATCH = 32
# Sizes of listed paths over the size of their sum, from which on a single one means little.
CANCELLING = 3.0


@dataclass(frozen=True)
class Path:
    """A source and the components that it passes, first to last."""

    source: Part
    components: tuple[Part, ...] = ()

    @property
    def label(self) -> str:
        """`embed → 0.1 → mlp 1`."""
        return " → ".join(part.label for part in (self.source, *self.components))

    @property
    def order(self) -> int:
        """Components passed."""
        return len(self.components)


@dataclass(frozen=True, eq=False)
class PathList:
    """The largest paths that were found, by size, and the books of everything else.

    Args:
        values: what each path adds; `by_token` the same by the position where its source enters.
        n_paths: all that there are; sources that are zero start none.
        n_expanded: partial paths that were taken apart.
        largest_open: the largest |subtotal| left open.
        bias: what is added whatever the stream is.
        ended_by: "all": every path was looked at; "count": none open is half as large as the k-th;
            "threshold", "coverage": as asked; "limit".
        residual: everything found, listed or not, and every subtotal left open, and the bias, minus the total.
    """

    label: str
    model_name: str
    str_tokens: tuple[str, ...]
    unit: str
    paths: tuple[Path, ...]
    values: Float[np.ndarray, " path"]
    by_token: Float[np.ndarray, "path pos"]
    n_paths: int
    n_expanded: int
    largest_open: float
    bias: float
    total: float
    ended_by: str
    residual: float

    @property
    def is_complete(self) -> bool:
        """Whether every path was looked at, so that the listed ones are certainly the largest."""
        return self.ended_by == "all"

    @property
    def listed(self) -> float:
        """The sum of the paths listed."""
        return float(self.values.sum())

    @property
    def remainder(self) -> float:
        """The exact sum of all paths that are not listed."""
        return self.total - self.bias - self.listed

    @property
    def absolute(self) -> float:
        """The sum of the sizes of the paths listed."""
        return float(np.abs(self.values).sum())

    @property
    def cancellation(self) -> float:
        """Sum of the sizes of the listed paths over the size of their sum: 1 if nothing cancels."""
        if not self.absolute:
            return 1.0
        return self.absolute / abs(self.listed) if self.listed else float("inf")

    @property
    def warning(self) -> str:
        """What keeps single terms from meaning much; "" where nothing does."""
        whole = abs(self.total - self.bias)
        if self.cancellation > CANCELLING:
            return (
                f"the {len(self.paths)} paths listed come to {self.absolute:.3g} {self.unit} in size and to "
                f"{self.listed:.3g} in sum: they cancel, so a single one means little"
            )
        if not self.is_complete and self.largest_open > CANCELLING * max(whole, self.absolute):
            return (
                f"one subtotal left open is {self.largest_open:.3g} {self.unit}, against {whole:.3g} in all: "
                "what is not listed cancels, and may hold larger paths"
            )
        return ""

    def table(self) -> pd.DataFrame:
        """Tidy: path source kind order value share unit; shares are of the total."""
        return pd.DataFrame(
            {
                "path": [path.label for path in self.paths],
                "source": [path.source.label for path in self.paths],
                "kind": [path.source.kind for path in self.paths],
                "order": [path.order for path in self.paths],
                "value": self.values,
                "share": self.values / self.total if self.total else np.nan,
                "unit": self.unit,
            }
        )

    def token_table(self) -> pd.DataFrame:
        """Tidy: path pos token value unit, by the position where the path's source enters."""
        row, pos = (axis.ravel() for axis in np.indices(self.by_token.shape))
        return pd.DataFrame(
            {
                "path": [self.paths[index].label for index in row],
                "pos": pos,
                "token": [self.str_tokens[index] for index in pos],
                "value": self.by_token.ravel(),
                "unit": self.unit,
            }
        )


def top_paths(  # noqa: PLR0913  # every reason to stop is an option of its own
    frozen: FrozenNetwork,
    direction: Direction,
    *,
    k: int = 20,
    threshold: float = 0.0,
    coverage: float | None = None,
    limit: int = LIMIT,
    progress: Progress | None = None,
) -> PathList:
    """The largest paths of a number, and what all others come to. The first reason to stop ends the search.

    Up to `limit` partial paths everything is enumerated: then the list is certainly that of the largest.

    Args:
        k: the most paths to list; found once the k best are twice as large as every subtotal left open.
        threshold: list only paths at least so large; found once no subtotal left open is.
        coverage: list as few paths as will do for everything else, found or open, to come to less than
            1 - coverage of the number in sizes, not only in sum. Where subtotals cancel that may never be.
        limit: the most partial paths to expand.
        progress: told how many of `limit` are; may raise to end the search.

    Raises:
        ConfigError: a number outside its range.
    """
    for name, given, least in (("k", k, 1), ("threshold", threshold, 0), ("limit", limit, 1)):
        if given < least:
            raise ConfigError(f"{name} is {given}: it is at least {least}")
    if coverage is not None and not 0 < coverage <= 1:
        raise ConfigError(f"coverage is {coverage}: it is above 0 and at most 1")
    suffixes = Suffixes(frozen, direction)
    ends = Ends(k, threshold, coverage, abs(direction.total - direction.bias))
    n_suffixes, n_paths = counts(suffixes)
    books = Books(suffixes, k)
    books.expand([()])
    ended_by = "all"
    while books.frontier.largest is not None:
        if n_suffixes > limit and (reason := ends.reached(books)):
            ended_by = reason
            break
        if books.n_expanded >= limit:
            ended_by = "limit"
            break
        n_next = min(BATCH, limit - books.n_expanded)
        books.expand([suffix for suffix, _ in itertools.islice(books.frontier, n_next)])
        if progress is not None:
            progress(books.n_expanded, min(limit, n_suffixes))
    return _listed(books, ends.chosen(books), n_paths, ended_by)


def path_values(
    frozen: FrozenNetwork, direction: Direction, path: Path
) -> Float[np.ndarray, " pos"]:
    """What one path adds, by the position where its source enters.

    Raises:
        ConfigError: a source or component that the model does not have, or one that does not feed the next.
    """
    suffixes = Suffixes(frozen, direction)
    suffix = suffixes.checked(path.components)
    return suffixes.by_token(suffixes.entered(path.source, suffix), suffix)


def _listed(
    books: Books, chosen: list[tuple[float, Part, Suffix]], n_paths: int, ended_by: str
) -> PathList:
    suffixes, direction = books.suffixes, books.suffixes.direction
    by_token = [suffixes.by_token(source, suffix) for _, source, suffix in chosen]
    table = np.array(by_token).reshape(len(chosen), len(direction.vector))
    values = table.sum(1)
    # Once more by size: in float32 the search's own values may differ in the last digit.
    order = np.argsort(-np.abs(values), kind="stable")
    others = books.found - sum(value for value, *_ in chosen)
    everything = float(values.sum()) + others + books.frontier.total + direction.bias
    return PathList(
        label=direction.label,
        model_name=suffixes.frozen.model.name,
        str_tokens=suffixes.frozen.str_tokens,
        unit=direction.unit,
        paths=tuple(Path(chosen[row][1], suffixes.parts(chosen[row][2])) for row in order),
        values=values[order],
        by_token=table[order],
        n_paths=n_paths,
        n_expanded=books.n_expanded,
        largest_open=books.frontier.largest or 0.0,
        bias=direction.bias,
        total=direction.total,
        ended_by=ended_by,
        residual=everything - direction.total,
    )
