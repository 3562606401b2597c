"""What the paths page computes, in a job's thread: each function answers one panel.

All panels but that of the score itself take a logit or a score apart, whichever is asked.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from app.analyses import Desk
from app.path_questions import ARROW, Given, asks, component, frozen, path_of, question
from workbench.errors import ConfigError
from workbench.models.protocol import Model
from workbench.paths.flow import PathFlow, path_flow
from workbench.paths.orders import OrderSpectrum, order_spectrum
from workbench.paths.scores import ScoreParts, score_parts
from workbench.paths.search import Feeds, PathList, feeds, top_paths
from workbench.paths.verify import Check, verify

MOST_OPENED = 40


@dataclass(frozen=True, eq=False)
class Tree:
    """What feeds the end and every opened partial path: by chain, the labels of its components with commas.

    Args:
        notes: chains that could not be opened, and why.
    """

    levels: dict[str, Feeds]
    label: str
    unit: str
    bias: float
    total: float
    notes: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """Tidy: through, then as of `Feeds.table`, for everything that is opened."""
        frames = [
            found.table().assign(through=ARROW.join(part.label for part in found.through))
            for found in self.levels.values()
        ]
        table = pd.concat(frames, ignore_index=True)
        return table[["through", *table.columns.drop("through")]]


@dataclass(frozen=True, eq=False)
class TokenShares:
    """A number by the prompt's token where its paths start; constants and the bias start nowhere."""

    str_tokens: tuple[str, ...]
    values: Float[np.ndarray, " pos"]
    label: str
    unit: str
    constant: float
    bias: float
    total: float
    residual: float

    def table(self) -> pd.DataFrame:
        """Tidy: pos token value share unit."""
        return pd.DataFrame(
            {
                "pos": range(len(self.values)),
                "token": self.str_tokens,
                "value": self.values,
                "share": self.values / self.total if self.total else np.nan,
                "unit": self.unit,
            }
        )


def spectrum(model: Model, asked: Given, desk: Desk) -> OrderSpectrum:
    """Every order's sum."""
    found = question(model, asked, desk)
    said = desk.counting("Summing paths of every length")
    return order_spectrum(found.network, found.direction, counted=asked["counted"], progress=said)


def top(model: Model, asked: Given, desk: Desk) -> PathList:
    """The largest single paths."""
    found = question(model, asked, desk)
    said = desk.counting("Searching the largest paths")
    return top_paths(found.network, found.direction, k=asked["k"], progress=said)


def flow(model: Model, asked: Given, desk: Desk) -> PathFlow:
    """Where the number flows."""
    found = question(model, asked, desk)
    return path_flow(found.network, found.direction, progress=desk.counting("Following the flow"))


def tokens(model: Model, asked: Given, desk: Desk) -> TokenShares:
    """The number by token."""
    names = ("what", "prompt", *asks(asked))
    found = desk.other("paths-flow", {name: asked[name] for name in names}, flow)
    return TokenShares(
        str_tokens=found.str_tokens,
        values=found.nodes[0],
        label=found.label,
        unit=found.unit,
        constant=float(found.constant.sum()),
        bias=found.bias,
        total=found.total,
        residual=found.residual,
    )


def tree(model: Model, asked: Given, desk: Desk) -> Tree:
    """What feeds the end, and each opened partial path whose own end is open too."""
    found = question(model, asked, desk)
    levels: dict[str, Feeds] = {"": feeds(found.network, found.direction, [])}
    notes: list[str] = []
    chains = sorted({chain for chain in asked["through"].split(";") if chain}, key=_depth)
    if len(chains) > MOST_OPENED:
        notes.append(f"{len(chains)} components are opened: the first {MOST_OPENED} are shown")
    rest = {name: asked[name] for name in ("what", "prompt", *asks(asked))}
    for index, chain in enumerate(chains[:MOST_OPENED]):
        desk(f"Opening {chain}", index / len(chains))
        try:
            if parent(chain) not in levels:
                raise ConfigError(f"{chain[:60]!r} is not opened: what it feeds is not")
            levels[chain] = desk.other("paths-feeds", {**rest, "chain": chain}, _feeds)
        except ConfigError as error:
            notes.append(str(error))
    direction = found.direction
    return Tree(
        levels, direction.label, direction.unit, direction.bias, direction.total, tuple(notes)
    )


def score(model: Model, asked: Given, desk: Desk) -> ScoreParts:
    """Why a head looks where it looks."""
    found = question(model, asked, desk)
    assert found.place is not None
    desk("Multiplying the parts of query and key")
    head, query, key, versus = found.place
    return score_parts(frozen(model, asked, desk), head, query, key, versus=versus)


def check(model: Model, asked: Given, desk: Desk) -> Check:
    """One path or component, taken out of the frozen network and of the model itself.

    Raises:
        ConfigError: no such path.
    """
    found = question(model, asked, desk)
    desk(f"Running {model.name} without it")
    what = path_of(found.network, asked["check"])
    return verify(frozen(model, asked, desk), found.direction, what)


def parent(chain: str) -> str:
    """The chain that a chain feeds."""
    return chain.partition(",")[2]


def _feeds(model: Model, asked: Given, desk: Desk) -> Feeds:
    found = question(model, asked, desk)
    through = [component(found.network, label) for label in asked["chain"].split(",")]
    return feeds(found.network, found.direction, through)


def _depth(chain: str) -> tuple[int, str]:
    return chain.count(","), chain
