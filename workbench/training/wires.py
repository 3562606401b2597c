"""A network as groups of units and blocks of wires between them: what wiring and modularity are about.

    MLP           (tokens →) inputs → hidden 0 → … → outputs
    Transformer   tokens, positions → stream → blocks.0.qk
                                      stream → blocks.0.vo → stream → blocks.0.mlp → stream → … → logits

The stream is one group at every depth: its channels are the same units wherever they are read or written.
A head has two rows of neurons, those that query and key share (`qk`) and those that value and output share
(`vo`), because these are what can be permuted without changing the function: so no measure of the graph
depends on how neurons are numbered. A tied unembedding is the same wires as the embedding, and stands once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import SiteError
from workbench.models.layers import Attention
from workbench.models.transformer import Transformer
from workbench.training.mlp import MLP

Network = MLP | Transformer


@dataclass(frozen=True, eq=False)
class Wires:
    """One block of connections; row = the unit that is read, column = the unit that reads it.

    Args:
        name: of the parameter, as in the model's state.
        source: name of the group that is read.
        target: name of the group that reads.
        weight: the parameter as a matrix; gradients flow back to it.
        copies: how often each number of the parameter stands in the matrix: keys and values that several
            query heads share, an embedding that several tokens share.
    """

    name: str
    source: str
    target: str
    weight: Float[Tensor, "source target"]
    copies: int = 1


def wires(model: Network) -> tuple[Wires, ...]:
    """Every block of connections, from the inputs up."""
    return tuple(_of_mlp(model) if isinstance(model, MLP) else _of_transformer(model))


def groups(model: Network) -> dict[str, int]:
    """The number of units in each group, in the order in which the wires name them."""
    found: dict[str, int] = {}
    for block in wires(model):
        found[block.source], found[block.target] = block.weight.shape
    return found


def biases(model: Network) -> dict[str, Tensor]:
    """Every trained bias of a neuron or channel, by the parameter's name; those of norms are none."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.rsplit(".", 1)[-1].startswith("b") and ".ln" not in f".{name}"
    }


def as_parameter(model: Network, name: str, matrix: Float[Tensor, "source target"]) -> Tensor:
    """A matrix over wires (a mask, say) in the shape of the parameter; copies are averaged.

    Raises:
        SiteError: no wires of that name.
    """
    known = {block.name for block in wires(model)}
    if name not in known:
        raise SiteError(f"{model.name} has no wires {name!r}; it has {', '.join(sorted(known))}")
    if isinstance(model, MLP):
        return _mlp_parameter(model, name, matrix)
    owner, _, kind = name.rpartition(".")
    if not owner.endswith(".attn"):
        return matrix
    attn = model.get_submodule(owner)
    assert isinstance(attn, Attention)
    return _head_parameter(attn, kind, matrix)


def real_units(attn: Attention) -> Int[Tensor, " unit"]:
    """Where the neurons of a layer's heads stand among `heads × widest`, the padding left out."""
    widest = max(attn.head_sizes)
    starts = [head * widest for head in range(len(attn.head_sizes))]
    return torch.cat(
        [
            torch.arange(start, start + size)
            for start, size in zip(starts, attn.head_sizes, strict=True)
        ]
    ).to(attn.W_Q.device)


def _of_mlp(model: MLP) -> Iterator[Wires]:
    fold, last = model.cfg.in_fold, model.cfg.n_layers - 1
    if model.embed is not None:
        weight = model.embed.W_E[:, model.in_perm].repeat(1, fold)
        yield Wires("embed.W_E", "tokens", "inputs", weight, fold)
    for index, layer in enumerate(model.layers):
        source = f"hidden {index - 1}" if index else "inputs"
        target = f"hidden {index}" if index < last else "outputs"
        yield Wires(f"layers.{index}.W", source, target, layer.W)


def _mlp_parameter(model: MLP, name: str, matrix: Tensor) -> Tensor:
    if name != "embed.W_E":
        return matrix
    placed = matrix.unflatten(1, (model.cfg.in_fold, -1)).mean(1)
    return placed[:, model.in_perm.argsort()]


def _of_transformer(model: Transformer) -> Iterator[Wires]:
    yield Wires("embed.W_E", "tokens", "stream", model.embed.W_E)
    if model.cfg.positions in ("learned", "shortformer"):
        yield Wires("pos_embed.W_pos", "positions", "stream", model.pos_embed.W_pos)
    for layer, block in enumerate(model.blocks):
        if block.attn is not None:
            yield from _of_attention(block.attn, layer)
        if block.mlp is not None:
            neurons, name = f"blocks.{layer}.mlp", f"blocks.{layer}.mlp"
            yield Wires(f"{name}.W_in", "stream", neurons, block.mlp.W_in)
            if block.mlp.is_gated:
                yield Wires(f"{name}.W_gate", "stream", neurons, block.mlp.W_gate)
            yield Wires(f"{name}.W_out", neurons, "stream", block.mlp.W_out)
    if not model.cfg.tied_unembedding:
        yield Wires("unembed.W_U", "stream", "logits", model.unembed.W_U)


def _of_attention(attn: Attention, layer: int) -> Iterator[Wires]:
    name, qk, vo = f"blocks.{layer}.attn", f"blocks.{layer}.qk", f"blocks.{layer}.vo"
    for kind, target in (("W_Q", qk), ("W_K", qk), ("W_V", vo)):
        weight = getattr(attn, kind)
        copies = 1 if kind == "W_Q" else attn.group
        weight = weight.repeat_interleave(copies, dim=0) if copies > 1 else weight
        flat = rearrange(weight, "head d_model d_head -> d_model (head d_head)")
        flat = flat if attn.one_size else flat[:, real_units(attn)]
        yield Wires(f"{name}.{kind}", "stream", target, flat, copies)
    flat = rearrange(attn.W_O, "head d_head d_model -> (head d_head) d_model")
    yield Wires(f"{name}.W_O", vo, "stream", flat if attn.one_size else flat[real_units(attn)])


def _head_parameter(attn: Attention, kind: str, matrix: Tensor) -> Tensor:
    heads, widest = len(attn.head_sizes), max(attn.head_sizes)
    rows = matrix if kind == "W_O" else matrix.T
    padded = rows.new_zeros(heads * widest, rows.shape[1])
    padded[real_units(attn)] = rows
    stacked = rearrange(padded, "(head d_head) d_model -> head d_head d_model", head=heads)
    if kind == "W_O":
        return stacked
    if kind != "W_Q" and attn.group > 1:
        stacked = stacked.unflatten(0, (-1, attn.group)).mean(1)
    return stacked.mT
