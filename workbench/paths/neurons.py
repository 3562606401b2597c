"""Totals through the neurons of one MLP: exact, because with the gates held every neuron is linear too.

With λ the direction that everything behind the MLP makes of the question, and neuron j reading and writing as

    post[j] = gate[j] (norm(x) W_in[:, j] + bias[j])        written: post[j] W_out[j]

all paths through neuron j add `gate[j] (norm(x) W_in[:, j]) ⟨λ, W_out[j]⟩`, and its bias adds what is left of
`post[j] ⟨λ, W_out[j]⟩`, whatever the neuron reads. Over all neurons the first sum to the MLP's own total; the
second, with the output bias, are the total of the MLP as a source.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Freezing attention patterns", for
MLPs; Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories", write an MLP as such a sum.)
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError
from workbench.paths.directions import Direction
from workbench.paths.maps import FrozenMLP
from workbench.paths.network import FrozenNetwork, Step
from workbench.sites import Site
from workbench.stream.parts import Part, as_numpy, part_columns


@dataclass(frozen=True, eq=False)
class NeuronPaths:
    """What passes through every neuron of one MLP.

    Args:
        by_token: all paths through each neuron, by the position where it acts.
        constants: what each neuron's bias, the norm's before it included, adds whatever the neuron reads.
        output_bias: what the layer adds beside its neurons.
        through: all paths through the MLP; `source` is its total as a source; neither made from neurons.
        residual: everything that the neurons and the output bias add, minus `through` and `source`.
    """

    label: str
    model_name: str
    str_tokens: tuple[str, ...]
    unit: str
    layer: int
    neurons: tuple[Part, ...]
    by_token: Float[np.ndarray, "neuron pos"]
    constants: Float[np.ndarray, " neuron"]
    output_bias: float
    through: float
    source: float
    residual: float

    @property
    def values(self) -> Float[np.ndarray, " neuron"]:
        """All paths through each neuron; they sum to `through`."""
        return self.by_token.sum(1)

    def table(self) -> pd.DataFrame:
        """Tidy: part kind layer head neuron source value constant unit."""
        frame = part_columns(self.neurons)
        return frame.assign(value=self.values, constant=self.constants, unit=self.unit)

    def top(self, k: int) -> pd.DataFrame:
        """The k neurons with the largest values by size; and the rest as one row, so that sums are kept."""
        frame = self.table()
        order = np.argsort(-np.abs(self.values), kind="stable")
        listed, rest = frame.iloc[order[:k]], frame.iloc[order[k:]]
        if rest.empty:
            return listed.reset_index(drop=True)
        sums = rest[["value", "constant"]].sum().to_dict()
        row = {"part": f"{len(rest)} others", "kind": "rest", "layer": self.layer, **sums}
        other = pd.DataFrame([row]).assign(unit=self.unit).reindex(columns=frame.columns)
        return pd.concat([listed, other.astype(frame.dtypes.to_dict())], ignore_index=True)


def through_neurons(frozen: FrozenNetwork, direction: Direction, layer: int) -> NeuronPaths:
    """The exact total of all paths through each neuron of one layer's MLP.

    Raises:
        ConfigError: a layer without an MLP, or one behind the level that is asked.
    """
    frozen = frozen.up_to(direction.n_steps)
    index = _mlp_step(frozen, layer)
    step = frozen.steps[index]
    behind = frozen.behind(direction.vector, index)
    written_for = behind if step.norm is None else step.norm.transpose(behind)
    through = float((written_for.double() * frozen.written[index][0].double()).sum())
    source = float((behind.double() * step.constant.double()).sum())
    linear, post = _activations(frozen, step)
    asked = _asked(_mlp(step), written_for).double()
    by_token = (linear.double() * asked).mT
    whole = (post.double() * asked).sum(0)
    output_bias = _output_bias(frozen, step, behind)
    return NeuronPaths(
        label=direction.label,
        model_name=frozen.model.name,
        str_tokens=frozen.str_tokens,
        unit=direction.unit,
        layer=layer,
        neurons=tuple(
            Part(f"{layer}.n{neuron}", "neuron", layer, neuron=neuron)
            for neuron in range(len(by_token))
        ),
        by_token=as_numpy(by_token),
        constants=as_numpy(whole - by_token.sum(1)),
        output_bias=output_bias,
        through=through,
        source=source,
        residual=float(whole.sum()) + output_bias - through - source,
    )


def _mlp_step(frozen: FrozenNetwork, layer: int) -> int:
    steps = {step.sublayer.layer: n for n, step in enumerate(frozen.steps) if step.kind == "mlp"}
    if layer not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise ConfigError(
            f"no MLP in layer {layer!r:.20} before the end: those with one are {known}"
        )
    return steps[layer]


def _mlp(step: Step) -> FrozenMLP:
    assert isinstance(step.sublayer, FrozenMLP)
    return step.sublayer


def _activations(
    frozen: FrozenNetwork, step: Step
) -> tuple[Float[Tensor, "pos neuron"], Float[Tensor, "pos neuron"]]:
    """Each neuron's output here: what is linear in the stream of it, and the model's own."""
    mlp = _mlp(step)
    x = frozen.levels[step.reads]
    x = x if mlp.reads is None else mlp.reads.apply(x)
    return x @ mlp.W_in * mlp.gate, frozen.run[Site("mlp_post", mlp.layer)][0]


def _asked(mlp: FrozenMLP, direction: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos neuron"]:
    """What a unit of each neuron's output adds at each position."""
    direction = direction if mlp.after is None else mlp.after.transpose(direction)
    return direction @ mlp.W_out.mT


def _output_bias(frozen: FrozenNetwork, step: Step, behind: Float[Tensor, "pos d_model"]) -> float:
    """The layer's bias behind its neurons, with that of a norm of the sum."""
    mlp = frozen.model.blocks[step.sublayer.layer].mlp
    written = (getattr(mlp, "step", 1.0) * mlp.b_out.detach()).expand_as(behind)
    written = written if step.sublayer.after is None else step.sublayer.after.apply(written)
    if step.norm is not None:
        written = step.norm.apply(written) + step.norm.bias
    return float((behind.double() * written.double()).sum())
