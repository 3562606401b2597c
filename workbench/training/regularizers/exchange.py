"""Which units may trade places without changing what the network computes, and how that is done.

    MLP           inputs (all folds at once) · hidden l · outputs
    Transformer   stream          channels, at every site at once
                  blocks.l heads                    whole heads, of one size; key/value heads with the query
                                                    heads they serve, and query heads among those
                  blocks.l head h vo                neurons that value and output share
                  blocks.l head h qk                neurons that query and key share; not where positions rotate
                  blocks.l mlp                      neurons, gates with them

A parameter is permuted as `new[i] = old[order[i]]`, and so are its gradient and its optimiser moments, all
of which are shaped like it: training goes on as if the units had always stood there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import ConfigError, UnsupportedError
from workbench.models.layers import Attention
from workbench.models.transformer import Transformer
from workbench.training.mlp import MLP
from workbench.training.wires import Network

View = Callable[[Tensor], Tensor]
"""A parameter → a view of it whose first dimension is the items that trade places."""


@dataclass(frozen=True, eq=False)
class Movable:
    """Items that may trade places: units, or heads as blocks of units.

    Args:
        units: for each group of the wires, which units an item consists of.
        sites: every parameter (or buffer) that must be permuted with them.
        rows: where the items stand in these views, if they do not fill them.
    """

    name: str
    units: tuple[tuple[str, Int[Tensor, "item unit"]], ...]
    sites: tuple[tuple[str, View], ...]
    rows: Int[Tensor, " item"] | None = None

    @property
    def n_items(self) -> int:
        """How many items trade places."""
        return self.units[0][1].shape[0]  # len() of a tensor is slow


def movables(model: Network) -> tuple[Movable, ...]:
    """Everything in a network that may trade places, in the order in which it is relocated."""
    found = _of_mlp(model) if isinstance(model, MLP) else _of_transformer(model)
    return tuple(movable for movable in found if movable.n_items > 1)


def immovable(model: Network) -> dict[str, str]:
    """What must stay where it is, and why."""
    if isinstance(model, MLP):
        return {}
    found = {"logits": "a token's number is its place in the vocabulary"}
    if model.cfg.positions == "sinusoidal":
        found["stream"] = "sinusoidal positions give each channel a wave of its own"
    if model.cfg.positions == "rotary":
        for layer, block in enumerate(model.blocks):
            if block.attn is not None:
                reason = (
                    "rotary positions turn each pair of query and key neurons at a rate of its own"
                )
                found[f"blocks.{layer} qk"] = reason
    return found


def movable(model: Network, name: str) -> Movable:
    """The items of one name.

    Raises:
        UnsupportedError: they cannot move; says why.
        ConfigError: no such items.
    """
    for found in movables(model):
        if found.name == name:
            return found
    for stays, reason in immovable(model).items():
        owner, _, kind = stays.rpartition(" ")
        if name == stays or (owner and name.startswith(f"{owner} ") and name.endswith(f" {kind}")):
            raise UnsupportedError(f"{name} of {model.name} cannot trade places: {reason}")
    known = ", ".join(found.name for found in movables(model))
    raise ConfigError(f"{model.name} has no {name!r} that could trade places; it has {known}")


@torch.no_grad()
def permute(
    model: Network,
    items: Movable,
    order: Int[Tensor, " item"],
    optimizers: Iterable[torch.optim.Optimizer] = (),
) -> None:
    """Put item `order[i]` at place i, in parameters, gradients and the optimisers' moments."""
    states = [optimizer.state for optimizer in optimizers]
    rows = torch.arange(items.n_items) if items.rows is None else items.rows
    for name, view in items.sites:
        path, _, leaf = name.rpartition(".")
        held: Tensor = getattr(model.get_submodule(path), leaf)
        moved = [held] if held.grad is None else [held, held.grad]
        for state in states:
            # The count of AdamW's steps has no dimensions; every moment is shaped like its parameter.
            found = state[held].values() if held in state else ()
            moved += [moment for moment in found if getattr(moment, "shape", None) == held.shape]
        for tensor in moved:
            seen = view(tensor)
            seen[rows] = seen[rows[order]]


def _units(indices: Tensor) -> Tensor:
    return indices if indices.ndim == 2 else indices[:, None]


def _of_mlp(model: MLP) -> Iterator[Movable]:
    cfg, last = model.cfg, model.cfg.n_layers - 1
    each = torch.arange(cfg.widths[0]).unflatten(0, (cfg.in_fold, -1)).T
    fold: View = lambda t: t.unflatten(0, (cfg.in_fold, -1)).transpose(0, 1)  # noqa: E731
    yield Movable("inputs", (("inputs", each),), (("layers.0.W", fold), ("in_perm", _first)))
    for index in range(cfg.n_layers):
        name = "outputs" if index == last else f"hidden {index}"
        sites = [(f"layers.{index}.W", _second)]
        sites += [(f"layers.{index}.b", _first)] if cfg.bias else []
        sites += [("out_perm", _first) if index == last else (f"layers.{index + 1}.W", _first)]
        each = _units(torch.arange(cfg.widths[index + 1]))
        yield Movable(name, ((name, each),), tuple(sites))


def _first(tensor: Tensor) -> Tensor:
    return tensor


def _second(tensor: Tensor) -> Tensor:
    return tensor.movedim(1, 0)


def _third(tensor: Tensor) -> Tensor:
    return tensor.movedim(2, 0)


# By the last part of a parameter's name: the dimension along which the stream's channels lie.
_CHANNELS: Mapping[str, View] = (
    dict.fromkeys(("W_E", "W_pos", "W_Q", "W_K", "W_V", "W_out"), _second)
    | dict.fromkeys(("W_in", "W_gate", "W_U", "b_O", "b_out", "w", "b"), _first)
    | {"W_O": _third}
)


def _of_transformer(model: Transformer) -> Iterator[Movable]:
    parameters = {name for name, _ in model.named_parameters()}
    if model.cfg.positions != "sinusoidal":
        leaves = {name: name.rsplit(".", 1)[-1] for name in sorted(parameters)}
        sites = [(name, _CHANNELS[leaf]) for name, leaf in leaves.items() if leaf in _CHANNELS]
        channels = _units(torch.arange(model.cfg.d_model))
        yield Movable("stream", (("stream", channels),), tuple(sites))
    for layer, block in enumerate(model.blocks):
        if block.attn is not None:
            for found in _of_attention(block.attn, layer):
                yield _trained(found, parameters)
        if block.mlp is not None:
            prefix, neurons = (
                f"blocks.{layer}.mlp",
                _units(torch.arange(model.cfg.d_mlp_or_default)),
            )
            views = {"W_in": _second, "W_gate": _second, "b_in": _first, "W_out": _first}
            of_mlp = tuple((f"{prefix}.{name}", view) for name, view in views.items())
            found = Movable(f"blocks.{layer} mlp", ((prefix, neurons),), of_mlp)
            yield _trained(found, parameters)


def _trained(found: Movable, parameters: set[str]) -> Movable:
    """Without the sites that this model lacks: gates, biases."""
    return replace(found, sites=tuple(site for site in found.sites if site[0] in parameters))


def _of_attention(attn: Attention, layer: int) -> Iterator[Movable]:
    yield from _whole_heads(attn, layer) if attn.group == 1 else _shared_heads(attn, layer)
    units = _neurons(attn)
    for kv_head in range(len(attn.W_K)):
        served = range(kv_head * attn.group, (kv_head + 1) * attn.group)
        # One row for each neuron, one column for each head that has it.
        neurons = torch.stack([units[head] for head in served], dim=1)
        sites = _inner_sites(f"blocks.{layer}.attn", kv_head, served, len(neurons))
        for kind in ("vo", "qk") if attn.config.positions != "rotary" else ("vo",):
            name = f"blocks.{layer} head {_label(served)} {kind}"
            yield Movable(name, ((f"blocks.{layer}.{kind}", neurons),), sites[kind])


def _neurons(attn: Attention) -> Sequence[Tensor]:
    """The units of each head in its groups."""
    return torch.arange(sum(attn.head_sizes)).split(list(attn.head_sizes))


def _label(served: range) -> str:
    return f"{served[0]}" if len(served) == 1 else f"{served[0]}-{served[-1]}"


def _inner_sites(
    prefix: str, kv_head: int, served: range, size: int
) -> dict[str, tuple[tuple[str, View], ...]]:
    """The neurons inside a key/value head and the query heads that it serves, padding left out."""
    heads = slice(served.start, served.stop)
    own: View = lambda t: t[kv_head, ..., :size].movedim(-1, 0)  # noqa: E731
    queries: View = lambda t: t[heads, ..., :size].movedim(-1, 0)  # noqa: E731
    outputs: View = lambda t: t[heads, :size].movedim(1, 0)  # noqa: E731
    named = {
        "vo": (("W_V", own), ("b_V", own), ("W_O", outputs)),
        "qk": (("W_Q", queries), ("b_Q", queries), ("W_K", own), ("b_K", own)),
    }
    return {
        kind: tuple((f"{prefix}.{leaf}", view) for leaf, view in sites)
        for kind, sites in named.items()
    }


_OF_QUERIES, _OF_KEYS = ("W_Q", "W_O", "b_Q"), ("W_K", "W_V", "b_K", "b_V")


def _whole_heads(attn: Attention, layer: int) -> Iterator[Movable]:
    """Heads of one size among themselves: the config says which head has which size."""
    units = _neurons(attn)
    sites = tuple((f"blocks.{layer}.attn.{leaf}", _first) for leaf in _OF_QUERIES + _OF_KEYS)
    for size in sorted(set(attn.head_sizes)):
        heads = [head for head, found in enumerate(attn.head_sizes) if found == size]
        neurons = torch.stack([units[head] for head in heads])
        name = f"blocks.{layer} heads" + ("" if attn.one_size else f" of size {size}")
        yield Movable(name, _both(layer, neurons), sites, torch.tensor(heads))


def _shared_heads(attn: Attention, layer: int) -> Iterator[Movable]:
    """Key/value heads with all query heads that they serve; then query heads that share one."""
    prefix, by_head = f"blocks.{layer}.attn", torch.stack(list(_neurons(attn)))
    together: View = lambda t: t.unflatten(0, (-1, attn.group))  # noqa: E731
    sites = [(f"{prefix}.{leaf}", together) for leaf in _OF_QUERIES]
    sites += [(f"{prefix}.{leaf}", _first) for leaf in _OF_KEYS]
    blocks = by_head.unflatten(0, (-1, attn.group)).flatten(1)
    yield Movable(f"blocks.{layer} key/value heads", _both(layer, blocks), tuple(sites))
    queries = tuple((f"{prefix}.{leaf}", _first) for leaf in _OF_QUERIES)
    for start in range(0, len(by_head), attn.group):
        served = torch.arange(start, start + attn.group)
        name = f"blocks.{layer} heads {start}-{start + attn.group - 1}"
        yield Movable(name, _both(layer, by_head[served]), queries, served)


def _both(layer: int, neurons: Tensor) -> tuple[tuple[str, Tensor], ...]:
    return (f"blocks.{layer}.qk", neurons), (f"blocks.{layer}.vo", neurons)
