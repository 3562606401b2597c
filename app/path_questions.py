"""What the paths page asks of one prompt: a logit, or an attention score, of one frozen network for all panels.

A question is a logit (`target`, `versus`, `pos`) or an attention score (`head`, `query`, `key`, `side`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from app.analyses import Desk
from app.residual_answers import token_of
from workbench.budget import spell_bytes
from workbench.errors import BudgetError, ConfigError, PromptError, SiteError, UnsupportedError
from workbench.models.protocol import Model
from workbench.paths.directions import Direction, logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.maps import FrozenAttention
from workbench.paths.network import FrozenNetwork
from workbench.paths.scores import score_direction
from workbench.paths.search import Path
from workbench.sites import Head
from workbench.stream.parts import Part

Given = Mapping[str, Any]
ARROW = " → "
MOST_BYTES = 400_000_000
LOGIT = ("pos", "target", "versus")
SCORE = ("head", "query", "key", "than", "side")


@dataclass(frozen=True, eq=False)
class Frozen:
    """A frozen network, its levels made."""

    network: FrozenNetwork

    @property
    def nbytes(self) -> int:
        """Bytes of what it keeps besides the model's weights."""
        network = self.network
        made: list[Tensor] = [*network.levels, *network.written, *network.sources.values()]
        for step in network.steps:
            held = step.sublayer
            made.append(held.pattern if isinstance(held, FrozenAttention) else held.gate)
        return network.run.nbytes + sum(one.nbytes for one in made)


@dataclass(frozen=True, eq=False)
class Asked:
    """A question: the network up to where its stream is asked, and the direction.

    Args:
        place: head, query, key and what it is compared with, where it is a score.
    """

    network: FrozenNetwork
    direction: Direction
    place: tuple[Head, int, int, int | str | None] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of what it does not share with the whole network."""
        own = [self.direction.vector]
        if self.place:
            own += [*self.network.levels, *self.network.written]
        return sum(one.nbytes for one in own)


def asks(state: Given) -> dict[str, Any]:
    """The fields of a state that its question consists of, besides `what` and `prompt`."""
    return {name: state[name] for name in (LOGIT if state["what"] == "logit" else SCORE)}


def frozen(model: Model, asked: Given, desk: Desk) -> FrozenNetwork:
    """The frozen network of a prompt, made once for all panels."""
    found: Frozen = desk.other("paths-frozen", {"prompt": asked["prompt"]}, _freeze)
    return found.network


def question(model: Model, asked: Given, desk: Desk) -> Asked:
    """What is asked, made once for all panels."""
    names = ("what", "prompt", *(LOGIT if asked["what"] == "logit" else SCORE))
    found: Asked = desk.other("paths-question", {name: asked[name] for name in names}, _question)
    return found


def component(network: FrozenNetwork, label: str) -> Part:
    """The component of a label.

    Raises:
        ConfigError: there is none.
    """
    known = {part.label: part for part in network.components}
    if label not in known:
        ends = f": they run from {next(iter(known))} to {[*known][-1]}" if known else ""
        raise ConfigError(
            f"no component {label[:40]!r} of {network.model.name} in front of this{ends}"
        )
    return known[label]


def path_of(network: FrozenNetwork, label: str) -> Part | Path:
    """What `0.1` or `embed → 0.1 → mlp 1` means.

    Raises:
        ConfigError: there is no such component or source.
    """
    first, *rest = label.split(ARROW)
    sources = {part.label: part for part in (*network.sources, *network.constants)}
    if not rest and first not in sources:
        return component(network, first)
    if first not in sources:
        known = ", ".join(list(sources)[:4])
        raise ConfigError(f"no source {first[:40]!r} of {network.model.name}: there are {known} …")
    return Path(sources[first], tuple(component(network, one) for one in rest))


def _freeze(model: Model, asked: Given, desk: Desk) -> Frozen:
    desk("Reading the prompt")
    _check_size(model, int(model.to_tokens(asked["prompt"]).shape[1]))
    desk(f"Running {model.name}")
    network = freeze(model, asked["prompt"])
    desk("Taking its stream apart")
    found = Frozen(network)
    assert found.nbytes  # levels and what was written are made here, not in every panel
    return found


def _check_size(model: Model, n_pos: int) -> None:
    """Refuse prompts whose frozen network is too large for a server that others use too.

    Raises:
        BudgetError: says how many tokens fit.
    """

    def needed(n_pos: int) -> int:
        return n_pos * (_per_position(model) + n_pos * _per_pair(model))

    if needed(n_pos) <= MOST_BYTES:
        return
    fits = n_pos
    while fits > 1 and needed(fits) > MOST_BYTES:
        fits -= max(1, fits // 64)
    raise BudgetError(
        f"the prompt has {n_pos} tokens, whose paths through {model.name} take {spell_bytes(needed(n_pos))}; "
        f"the page takes {spell_bytes(MOST_BYTES)}, about {fits} tokens: shorten it, or use "
        "workbench.paths in Python"
    )


def _per_position(model: Model) -> int:
    """Bytes for each token: what parts write, twice more while they are read, hidden units, logits."""
    cfg, width = model.cfg, model.W_E.element_size()
    n_heads = sum(model.n_heads_in(layer) for layer in range(cfg.n_layers))
    hidden = sum(block.mlp.W_in.shape[-1] for block in model.blocks if block.has_mlp)
    vectors = 3 * (n_heads + cfg.n_layers) + 2 * cfg.n_layers + 3
    return int(width * (vectors * cfg.d_model + 4 * hidden + cfg.d_out))


def _per_pair(model: Model) -> int:
    """Bytes for each pair of tokens: a pattern and a half of every head, and one layer's flow."""
    heads = [model.n_heads_in(layer) for layer in range(model.cfg.n_layers)]
    return int(model.W_E.element_size() * (1.5 * sum(heads) + 4 * max(heads, default=0)))


def _question(model: Model, asked: Given, desk: Desk) -> Asked:
    whole = frozen(model, asked, desk)
    if asked["what"] == "score":
        head, query, key, versus = place = place_of(whole, asked)
        direction = score_direction(whole, head, query, key, side=asked["side"], versus=versus)
        return Asked(whole.up_to(direction.n_steps), direction, place)
    pos = -1 if asked["pos"] is None else asked["pos"]
    target, versus = token_of(asked["target"]), token_of(asked["versus"])
    try:
        return Asked(whole, logit_direction(whole, target, distractor=versus, pos=pos))
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{error}. Its attention scores can be: choose “attention score” at the left"
        ) from error


def place_of(network: FrozenNetwork, asked: Given) -> tuple[Head, int, int, int | str | None]:
    """Head, query, key and what it is compared with: by default the last query, the key that it attends to
    most, the mean of the others. A query that sees one key has nothing to compare with.

    Raises:
        SiteError: no such head.
        PromptError: no such position.
    """
    model, head = network.model, Head.parse(asked["head"])
    counts = [model.n_heads_in(layer) for layer in range(model.cfg.n_layers)]
    if not sum(counts):
        raise UnsupportedError(f"{model.name} has no heads, hence no attention scores")
    if head.layer >= len(counts) or head.head >= counts[head.layer]:
        raise SiteError(f"{model.name} has no head {head}: its layers have {counts} heads")
    n_pos = len(network.str_tokens)
    for name in ("query", "key"):
        if asked[name] is not None and asked[name] >= n_pos:
            raise PromptError(
                f"no {name} {asked[name]}: the prompt's positions are 0 to {n_pos - 1}"
            )
    query = n_pos - 1 if asked["query"] is None else asked["query"]
    row = network.run.pattern(head.layer)[0, head.head, query]
    key = int(row.argmax()) if asked["key"] is None else asked["key"]
    versus = int(asked["than"]) if asked["than"].isdecimal() else asked["than"] or None
    is_alone = network.run.is_causal and query == 0 and versus == "mean"
    return head, query, key, None if is_alone else versus
