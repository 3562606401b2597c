"""How sparsely neurons fire, which never do, and what makes the sparsest fire.

    participation[neuron] = (Σ |a|)² / (n Σ a²)      1: equally strong everywhere; 1/n: at one position alone
    null                  = mean over neurons, after random rotations of the layer's neurons
    dead                  = share of neurons whose Σ a² is below 10⁻⁶ of their layer's median

A nonlinearity acts on each neuron by itself; were neurons no special directions, turning them would change
nothing. (Elhage et al. 2022, "Softmax Linear Units"; Treves & Rolls 1991 for the measure.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts
from probes.nulls import beside_null, bootstrap

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
        n_turns: random rotations of each layer beside which its participation stands.
    """

    n_prompts: int = 16
    n_tokens: int = 64
    most_layers: int = 8
    n_neurons: int = 5
    n_examples: int = 3
    n_turns: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 1, 10_000)
        check_whole("n_tokens", self.n_tokens, 4, 4096)
        check_whole("most_layers", self.most_layers, 1, 1000)
        check_whole("n_neurons", self.n_neurons, 0, 1000)
        check_whole("n_examples", self.n_examples, 1, 100)
        check_whole("n_turns", self.n_turns, 2, 1000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class NeuronStatistics(Probe):
    """Sparsity, dead neurons, and top examples."""

    name = "neuron-statistics"
    title = "Neurons: sparse, dead, and what makes them fire"
    version = 2
    question = (
        "How sparsely do the neurons of each MLP fire, and are neurons special directions at all?"
    )
    method = (
        "`participation = (Σ|a|)² / (n Σa²)` of every neuron over all n positions but each row's first: 1 "
        "where it is equally strong everywhere, 1/n where it fires once; mean over living neurons, and, as "
        "the null's mean and spread, the same after random rotations of the layer. Dead: "
        f"`Σa² ≤ {DEAD:g} · median over the layer`. The sparsest neurons are shown with the tokens at which "
        "they are strongest. Intervals draw neurons again. Sources: Treves & Rolls 1991; Elhage et al. 2022."
    )
    limits = (
        "A neuron that is dead on this text may fire on other text. Rare firing is not meaning. Untrained "
        "networks are sparser along neurons than turned as well, by their nonlinearity: so there is no p."
    )
    needs = "Site mlp_post; text; transformers and encoders with MLPs and a tokenizer."
    kind = "data"
    Config = NeuronConfig

    def refuses(self, facts: ModelFacts) -> str:
        """No neurons, or no text."""
        if facts.kind == "mlp" or not facts.has_tokenizer:
            return f"it reads no text: {facts.described}"
        return "" if facts.has_mlp else f"it has no MLPs: {facts.described}"

    def cost(self, facts: ModelFacts, data: DataFacts, config: NeuronConfig) -> Cost:
        """The forward pass and all rotations of every layer."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        positions = config.n_prompts * n_tokens
        layers = min(config.most_layers, facts.n_layers)
        forward = positions * 2 * facts.n_params / 2.5e10
        turned = (facts.d_mlp**3 * 2 + positions * facts.d_mlp**2 * 2) / 4e10
        turned += positions * facts.d_mlp * 1e-8
        forward += layers * config.n_turns * turned
        held = positions * facts.d_mlp * (4 * layers + 24) + facts.d_mlp**2 * 16
        return Cost(0.3 + forward, held + n_tokens * facts.d_out * 8 + 6e7)

    def run(
        self, model: Any, data: ProbeData, config: NeuronConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """Dead share and participation of each layer, and its sparsest neurons."""
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


def turned(acts: Float[np.ndarray, "place neuron"], n_turns: int, seed: int) -> Sequence[float]:
    """Mean participation after each of some random rotations of the neurons."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(n_turns):
        drawn = torch.randn(acts.shape[1], acts.shape[1], generator=generator)
        # Up to signs, which participation does not see, Q is even over all rotations.
        turn = torch.linalg.qr(drawn)[0].numpy()
        found.append(float(participation(acts @ turn).mean()))
    return found


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
    of = participation(living)
    yield {
        "measure": "participation",
        **beside_null(of.mean(), turned(living, config.n_turns, config.seed)),
        # The nonlinearity alone makes neurons sparser than their turned copies: ranks among these are no p.
        "p": np.nan,
        **bootstrap(of, seed=config.seed),
        "n": len(of),
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
