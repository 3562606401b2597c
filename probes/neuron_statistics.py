"""How sparsely neurons fire, which never do, and what makes the sparsest fire.

    participation[neuron] = (Σ |a|)² / (n Σ a²)      1: equally strong everywhere; 1/n: at one position alone
    turned                = the same after a random rotation of the layer's neurons
    dead                  = share of neurons whose Σ a² is below 10⁻⁶ of their layer's median

A nonlinearity acts on each neuron by itself; were neurons no special directions, turning them would change
nothing. (Elhage et al. 2022, "Softmax Linear Units"; Treves & Rolls 1991 for the measure.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts
from probes.nulls import bootstrap

if TYPE_CHECKING:
    from torch import Tensor

DEAD = 1e-6
CONTEXT = 6


@dataclass(frozen=True)
class NeuronConfig:
    """How much text is read, and how many neurons are shown.

    Args:
        most_layers: of a deeper model so many, evenly spaced.
        n_neurons: the sparsest living neurons of each layer, with what makes them fire.
        n_examples: of each of these.
    """

    n_prompts: int = 16
    n_tokens: int = 64
    most_layers: int = 8
    n_neurons: int = 5
    n_examples: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 1, 10_000)
        check_whole("n_tokens", self.n_tokens, 4, 4096)
        check_whole("most_layers", self.most_layers, 1, 1000)
        check_whole("n_neurons", self.n_neurons, 0, 1000)
        check_whole("n_examples", self.n_examples, 1, 100)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class NeuronStatistics(Probe):
    """Sparsity, dead neurons, and top examples."""

    name = "neuron-statistics"
    title = "Neurons: sparse, dead, and what makes them fire"
    version = 1
    question = (
        "How sparsely do the neurons of each MLP fire, and are neurons special directions at all?"
    )
    method = (
        "Participation (Σ|a|)² / (n Σa²) of every neuron over all positions but each row's first: 1 where it "
        "is equally strong everywhere, 1/n where it fires once; mean over living neurons, and the same after "
        "a random rotation of the layer. Dead: no activation to speak of on this text. The sparsest neurons "
        "are shown with the tokens at which they are strongest. Intervals draw neurons again. Sources: "
        "Treves & Rolls 1991; Elhage et al. 2022."
    )
    limits = (
        "A neuron that is dead on this text may fire on other text. Rare firing is not meaning. Untrained "
        "networks are sparser along neurons than turned as well, by their nonlinearity: so there is no p."
    )
    kind = "data"
    Config = NeuronConfig

    def refuses(self, facts: ModelFacts) -> str:
        """No neurons, or no text."""
        if facts.kind == "mlp" or not facts.has_tokenizer:
            return f"it reads no text: {facts.described}"
        return "" if facts.has_mlp else f"it has no MLPs: {facts.described}"

    def cost(self, facts: ModelFacts, data: DataFacts, config: NeuronConfig) -> Cost:
        """The forward pass and one rotation of every layer."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        positions = config.n_prompts * n_tokens
        layers = min(config.most_layers, facts.n_layers)
        forward = positions * 2 * facts.n_params / 2.5e10
        turned = layers * (facts.d_mlp**3 * 6 + positions * facts.d_mlp**2 * 2) / 2e10
        held = positions * facts.d_mlp * (4 * layers + 16) + facts.d_mlp**2 * 24
        return Cost(0.3 + forward + turned, held + n_tokens * facts.d_out * 8 + 6e7)

    def run(
        self, model: Any, data: ProbeData, config: NeuronConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """Participation, turned participation and dead share of each layer; then single neurons."""
        tokens = data.tokens(
            model, config.n_prompts, min(config.n_tokens, model.cfg.n_ctx), config.seed
        )
        having = [layer for layer in range(model.cfg.n_layers) if model.blocks[layer].has_mlp]
        picked = np.linspace(0, len(having) - 1, min(config.most_layers, len(having))).round()
        layers = [having[int(index)] for index in np.unique(picked)]
        acts, texts = _read(model, tokens, layers, progress)
        rows: list[dict[str, Any]] = []
        for index, layer in enumerate(layers):
            rows += _layer_rows(layer, acts[layer], texts, config)
            progress(0.6 + 0.4 * (index + 1) / len(layers), "layers")
        return findings_table(rows)


def _read(
    model: Any, tokens: "Tensor", layers: list[int], progress: Progress
) -> tuple[dict[int, Float[np.ndarray, "place neuron"]], list[str]]:
    """Activations of some layers at every place, and the text of each place with what stands before it."""
    from workbench.runs import run
    from workbench.sites import Site

    sites = [Site("mlp_post", layer) for layer in layers]
    kept: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    texts = []
    for index, row in enumerate(tokens):
        one = run(model, row[None], sites=sites)
        for layer, site in zip(layers, sites, strict=True):
            kept[layer].append(one[site][0, 1:].float().cpu().numpy())
        names = one.str_tokens[0]
        texts += ["".join(names[max(0, at - CONTEXT) : at + 1]) for at in range(1, len(names))]
        progress(0.6 * (index + 1) / len(tokens), "prompts")
    return {layer: np.concatenate(parts) for layer, parts in kept.items()}, texts


def participation(acts: Float[np.ndarray, "place neuron"]) -> Float[np.ndarray, " neuron"]:
    """(Σ |a|)² / (n Σ a²) of each neuron; NaN where it is never active at all."""
    square = (acts.astype(np.float64) ** 2).sum(0)
    total = np.abs(acts).sum(0, dtype=np.float64) ** 2
    return np.where(square > 0, total / np.maximum(len(acts) * square, 1e-300), np.nan)


def _layer_rows(
    layer: int, acts: Float[np.ndarray, "place neuron"], texts: list[str], config: NeuronConfig
) -> Iterator[dict[str, Any]]:
    energy = (acts.astype(np.float64) ** 2).sum(0)
    is_dead = energy <= DEAD * np.median(energy)
    living = acts[:, ~is_dead]
    common = {"layer": layer, "site": "mlp_post", "seed": config.seed}
    yield {
        "measure": "dead",
        "value": is_dead.mean(),
        "n": acts.shape[1],
        "unit": "share of neurons",
        **common,
    }
    if living.shape[1] < 2:
        return
    drawn = np.random.default_rng(config.seed).normal(size=(living.shape[1], living.shape[1]))
    turn = np.linalg.qr(drawn)[0]  # up to signs, which participation does not see, a Haar rotation
    of = participation(living)
    for measure, values in (("participation", of), ("turned", participation(living @ turn))):
        yield {
            "measure": measure,
            "value": values.mean(),
            **bootstrap(values, seed=config.seed),
            "n": len(values),
            "unit": "share of places",
            **common,
        }
    names = np.flatnonzero(~is_dead)
    for place in np.argsort(of, kind="stable")[: config.n_neurons]:
        strongest = np.argsort(-np.abs(living[:, place]), kind="stable")[: config.n_examples]
        for rank, at in enumerate(strongest):
            yield {
                "measure": "example",
                "item": f"neuron {names[place]} #{rank + 1}: {texts[at][-80:]}",
                "value": float(living[at, place]),
                "n": len(living),
                "unit": "activation",
                **common,
            }


PROBE = NeuronStatistics()
