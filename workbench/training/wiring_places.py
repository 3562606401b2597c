"""Where the units of a network stand in its picture: rows from the inputs up, heads in slots of their row.

On lines a unit stands at its place from left to right. On squares a row is a square seen aslant: its second
axis goes to the right and up. Blocks of inputs that share their places are drawn a little above one another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from workbench.errors import ConfigError
from workbench.models.transformer import Transformer
from workbench.training.layouts import Layout, line_layout
from workbench.training.mlp import MLP
from workbench.training.wires import Network, Wires, groups, wires

_ASLANT = (0.8, 0.2, 0.44)  # of a square: width, shift to the right, rise
_FOLD = 0.16
_SLOT = 0.9  # the part of a head's slot that its neurons fill
_TOKENS = 0.78  # the part of a row of tokens and positions that tokens fill


@dataclass(frozen=True, eq=False)
class Stage:
    """One group drawn once: the places of its units, and what is written at them."""

    group: str
    x: Float[np.ndarray, " unit"]
    y: Float[np.ndarray, " unit"]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Ends:
    """Between which two stages, by number, a block of wires is drawn."""

    wires: Wires
    source: int
    target: int


@dataclass(frozen=True, eq=False)
class Stages:
    """All that stands somewhere in a picture.

    Args:
        rows: name and height.
        boxes: heads and positions: name, left end, right end, row.
    """

    stages: tuple[Stage, ...]
    blocks: tuple[Ends, ...]
    rows: tuple[tuple[str, float], ...]
    boxes: tuple[tuple[str, float, float, float], ...]


def stages_of(model: Network, layout: Layout | None, labels: Mapping[str, Sequence[str]]) -> Stages:
    """The stages of a network, from the inputs up.

    Raises:
        ConfigError: labels of a group that it lacks, or more or fewer than it has units.
    """
    sizes = groups(model)
    for name, given in labels.items():
        if name not in sizes:
            raise ConfigError(f"{model.name} has no group {name!r:.40}; it has {', '.join(sizes)}")
        n = model.cfg.d_fold if isinstance(model, MLP) and name == "inputs" else sizes[name]
        if len(given) != n:
            raise ConfigError(f"{len(given)} labels for the {n} units of {name!r}")
    layout = layout or line_layout(model)
    if isinstance(model, MLP):
        return _of_mlp(model, layout, labels)
    return _of_transformer(model, layout, labels)


def _of_mlp(model: MLP, layout: Layout, labels: Mapping[str, Sequence[str]]) -> Stages:
    sizes = groups(model)
    stages, rows = [], []
    for row, (name, n) in enumerate(sizes.items()):
        x, y = _placed(layout, name, n)
        if name == "inputs" and model.cfg.in_fold > 1:
            fold = np.arange(n) // model.cfg.d_fold
            y = y + _FOLD * (fold - (model.cfg.in_fold - 1) / 2)
        stages.append(Stage(name, x, y + row, _mlp_labels(model, name, n, labels.get(name))))
        rows.append((name, float(row)))
    where = {name: number for number, name in enumerate(sizes)}
    blocks = tuple(Ends(w, where[w.source], where[w.target]) for w in wires(model))
    return Stages(tuple(stages), blocks, tuple(rows), ())


def _mlp_labels(model: MLP, group: str, n: int, given: Sequence[str] | None) -> tuple[str, ...]:
    if group == "inputs":
        own = ("",) * n if model.embed is not None else tuple(f"x{i + 1}" for i in range(n))
        named = tuple(given or own[: model.cfg.d_fold])
        return tuple(named[i] for i in model.in_perm.tolist()) * model.cfg.in_fold
    if group == "outputs":
        named = tuple(given or (("y",) if n == 1 else tuple(f"y{i + 1}" for i in range(n))))
        return tuple(named[i] for i in model.out_perm.tolist())
    if group == "tokens":
        return tuple(given or map(str, range(n)))
    return tuple(given or ("",) * n)


def _placed(
    layout: Layout, group: str, n: int
) -> tuple[Float[np.ndarray, " unit"], Float[np.ndarray, " unit"]]:
    """Across and up from the middle of a row; groups without places are spread evenly."""
    if group not in layout.places:
        return (np.arange(n) + 0.5) / n, np.zeros(n)
    places = layout.places[group].double().cpu().numpy()
    if len(places) != n:
        raise ConfigError(f"the layout has places for {len(places)} of the {n} units of {group!r}")
    if places.shape[1] == 1:
        return places[:, 0].copy(), np.zeros(n)
    wide, shift, rise = _ASLANT
    across, up = places[:, 0] - 0.5, places[:, 1] - 0.5
    return 0.5 + wide * across + shift * up, rise * up


class _Rows:
    """A transformer's picture while it is put together, row by row."""

    def __init__(
        self, model: Transformer, layout: Layout, labels: Mapping[str, Sequence[str]]
    ) -> None:
        self.model, self.layout = model, layout
        self.sizes, self.labels = groups(model), labels
        self.wires = {block.name: block for block in wires(model)}
        self.stages: list[Stage] = []
        self.blocks: list[Ends] = []
        self.rows: list[tuple[str, float]] = []
        self.boxes: list[tuple[str, float, float, float]] = []

    def row(self, name: str) -> None:
        """A further row on top; what is added next stands in it."""
        self.rows.append((name, float(len(self.rows))))

    def add(self, group: str, x: np.ndarray, y: np.ndarray | None = None) -> int:
        """A stage in the current row; its number."""
        at = self.rows[-1][1]
        labels = tuple(self.labels.get(group) or ("",) * len(x))
        self.stages.append(Stage(group, x, np.full(len(x), at) if y is None else y + at, labels))
        return len(self.stages) - 1

    def stream(self) -> int:
        """The stream's channels, once more, in a row of their own."""
        self.row("stream")
        return self.add("stream", *_placed(self.layout, "stream", self.sizes["stream"]))

    def join(self, source: int, target: int, *names: str) -> None:
        """Blocks of wires between two stages; names that the model lacks are passed over."""
        self.blocks += [
            Ends(self.wires[name], source, target) for name in names if name in self.wires
        ]


def _of_transformer(
    model: Transformer, layout: Layout, labels: Mapping[str, Sequence[str]]
) -> Stages:
    made = _Rows(model, layout, _token_labels(model) | dict(labels))
    bottom = _lookups(made)
    stream = made.stream()
    for source, name in bottom:
        made.join(source, stream, name)
    for layer, block in enumerate(model.blocks):
        before, reads = stream, f"blocks.{layer}"
        parts = []
        if block.attn is not None:
            parts.append(_heads(made, layer, block.attn.head_sizes, before))
            if not (model.cfg.parallel and block.mlp is not None):
                stream = _written(made, parts)
        if block.mlp is not None:
            made.row(f"mlp of block {layer}")
            group = f"{reads}.mlp"
            neurons = made.add(group, *_placed(layout, group, made.sizes[group]))
            reader = before if model.cfg.parallel else stream
            made.join(reader, neurons, f"{group}.W_in", f"{group}.W_gate")
            parts.append((neurons, f"{group}.W_out"))
            stream = _written(made, parts)
    if "logits" in made.sizes:
        made.row("logits")
        logits = made.add("logits", _even(made.sizes["logits"]))
        made.join(stream, logits, "unembed.W_U")
    return Stages(tuple(made.stages), tuple(made.blocks), tuple(made.rows), tuple(made.boxes))


def _token_labels(model: Transformer) -> dict[str, Sequence[str]]:
    sizes = groups(model)
    found: dict[str, Sequence[str]] = {}
    if model.tokenizer is not None:
        for name in ("tokens", "logits"):
            if name in sizes and sizes[name] <= model.tokenizer.d_vocab:
                found[name] = model.tokenizer.str_tokens(list(range(sizes[name])))
    return found


def _lookups(made: _Rows) -> list[tuple[int, str]]:
    with_positions = "positions" in made.sizes
    made.row("tokens, positions" if with_positions else "tokens")
    tokens = _even(made.sizes["tokens"])
    if not with_positions:
        return [(made.add("tokens", tokens), "embed.W_E")]
    positions = 1 - (1 - _TOKENS) * 0.9 * (1 - _even(made.sizes["positions"]))
    made.boxes.append(("positions", float(positions[0]), float(positions[-1]), 0.0))
    return [
        (made.add("tokens", tokens * _TOKENS), "embed.W_E"),
        (made.add("positions", positions), "pos_embed.W_pos"),
    ]


def _heads(made: _Rows, layer: int, sizes: Sequence[int], reads: int) -> tuple[int, str]:
    """Each head in a slot as wide as it has neurons: those of query and key left, value and output right."""
    made.row(f"heads of block {layer}")
    ends = np.cumsum([0, *sizes]) / sum(sizes)
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for head, size in enumerate(sizes):
        left, wide = ends[head], ends[head + 1] - ends[head]
        start, half = left + wide * (1 - _SLOT) / 2, wide * _SLOT / 2
        made.boxes.append((f"head {layer}.{head}", start, start + 2 * half, made.rows[-1][1]))
        halves[0].append(start + 0.94 * half * _even(size))
        halves[1].append(start + half * (1.06 + 0.94 * _even(size)))
    qk, vo = (
        made.add(f"blocks.{layer}.{kind}", np.concatenate(half))
        for kind, half in zip(("qk", "vo"), halves, strict=True)
    )
    name = f"blocks.{layer}.attn"
    made.join(reads, qk, f"{name}.W_Q", f"{name}.W_K")
    made.join(reads, vo, f"{name}.W_V")
    return vo, f"{name}.W_O"


def _written(made: _Rows, parts: Sequence[tuple[int, str]]) -> int:
    """The stream after what wrote into it last."""
    stream = made.stream()
    known = {ends.wires.name for ends in made.blocks}
    for source, name in parts:
        if name not in known:
            made.join(source, stream, name)
    return stream


def _even(n: int) -> Float[np.ndarray, " unit"]:
    return (np.arange(n) + 0.5) / n
