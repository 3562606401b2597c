"""How the residual stream grows from layer to layer, and whether what is written points along it.

    norm[layer, s]   = mean ‖x + out_s‖                     after what s writes
    growth[layer, s] = mean ‖x + out_s‖ / ‖x‖               s = attention, MLP; x is the stream that it adds to
    null             the same with `out_s` turned at random: one signed permutation of the coordinates a draw

Under the null what is written keeps its length and its differences between positions, but not its direction
to the stream: above it, a layer writes along what is there; below, against it, and so erases.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits": memory management.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts
from probes.nulls import beside_null, bootstrap


@dataclass(frozen=True)
class NormsConfig:
    """How much is read, and how often the null is drawn.

    Args:
        n_prompts: rows of `n_tokens`, of which the first position is left out: streams there are unlike others.
    """

    n_prompts: int = 24
    n_tokens: int = 64
    n_draws: int = 99
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 1, 10_000)
        check_whole("n_tokens", self.n_tokens, 4, 4096)
        check_whole("n_draws", self.n_draws, 1, 10_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class ResidualNorms(Probe):
    """How long the stream is at each depth."""

    name = "residual-norms"
    title = "Residual stream: length and growth"
    version = 2
    question = "How fast does the residual stream grow, and do layers write along it or against it?"
    method = (
        "`norm = mean ‖x + out‖` after each attention and MLP, and `growth = mean ‖x + out‖ / ‖x‖` for what "
        "each of them adds to the stream x. The null turns `out` by random signed permutations of the "
        "coordinates. Intervals draw prompts again (bootstrap). Source: Elhage et al. 2021, memory "
        "management."
    )
    limits = (
        "Lengths are not comparable between models of different norms. Positions of one document are not "
        "independent; intervals are over prompts. The first position is left out."
    )
    needs = (
        "Sites resid_pre, attn_out and mlp_out; text; transformers and encoders with a tokenizer, "
        "norms not after the sums."
    )
    kind = "data"
    Config = NormsConfig
    draws = "n_draws"

    def refuses(self, facts: ModelFacts) -> str:
        """Post-norm streams are no sums."""
        if facts.kind == "mlp":
            return f"it has no residual stream: {facts.described}"
        if not facts.n_layers:
            return f"it has no layers that write to its stream: {facts.described}"
        if facts.norm_position == "post":
            return (
                f"its stream is normalised after every sum, so it does not grow: {facts.described}"
            )
        return ""

    def cost(self, facts: ModelFacts, data: DataFacts, config: NormsConfig) -> Cost:
        """The forward pass, and the draws of the null over every position and layer."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        n_positions = config.n_prompts * n_tokens
        forward = n_positions * 2 * facts.n_params / 1.5e10
        sites = facts.n_layers * (2 if facts.has_mlp else 1)
        draws = n_positions * sites * facts.d_model * config.n_draws * 8e-9
        held = n_tokens * facts.d_model * 4 * (3 * facts.n_layers + 12)
        logits = n_tokens * facts.d_out * 4 * 2
        return Cost(0.15 + forward + draws, held + logits + 30e6)

    def run(
        self, model: Any, data: ProbeData, config: NormsConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """One row for each layer's norm, and for each part's growth."""
        n_tokens = min(config.n_tokens, model.cfg.n_ctx)
        tokens = data.tokens(model, config.n_prompts, n_tokens, config.seed)
        norms, growths, nulls = [], [], []
        for index, row in enumerate(tokens):
            measured = _measure(model, row, config)
            norms.append(measured[0])
            growths.append(measured[1])
            nulls.append(measured[2])
            progress((index + 1) / len(tokens), "prompts")
        n_positions = len(tokens) * (tokens.shape[1] - 1)
        common = {"n": n_positions, "seed": config.seed}
        rows = [
            *_norm_rows(model, np.stack(norms), config.seed, common),
            *_growth_rows(model, np.stack(growths), np.stack(nulls), config.seed, common),
        ]
        return findings_table(rows)


def _sites(model: Any) -> list[tuple[str, int]]:
    """What adds to the stream, from the embedding up."""
    found = []
    for layer, block in enumerate(model.blocks):
        found += [("attn_out", layer)] if block.has_attn else []
        found += [("mlp_out", layer)] if block.has_mlp else []
    return found


def _streams(
    model: Any, row: Int[Any, " pos"]
) -> Iterator[tuple[Float[np.ndarray, "pos d_model"], Float[np.ndarray, "pos d_model"]]]:
    """For each site the stream before it and what it writes, the first position left out."""
    from workbench.runs import run
    from workbench.sites import Site

    sites = _sites(model)
    wanted = [Site(kind, layer) for kind, layer in sites]
    wanted += [Site("resid_pre", layer) for layer in range(model.cfg.n_layers)]
    one = run(model, row[None], sites=wanted)
    for layer in range(model.cfg.n_layers):
        x = one[Site("resid_pre", layer)][0, 1:].double().cpu().numpy()
        base = x
        for kind, _ in (site for site in sites if site[1] == layer):
            out = one[Site(kind, layer)][0, 1:].double().cpu().numpy()
            yield base, out
            if not model.cfg.parallel:
                base = base + out


def _measure(
    model: Any, row: Int[Any, " pos"], config: NormsConfig
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, " site"], Float[np.ndarray, "site draw"]]:
    """Means over one prompt's positions: the stream's length after each site, its growth, and the null's."""
    # The same turns for every prompt, so that a draw is one turn of the whole data.
    rng = np.random.default_rng(config.seed)
    norms, growths, nulls = [], [], []
    for x, out in _streams(model, row):
        length = np.linalg.norm(x, axis=-1)
        after = np.linalg.norm(x + out, axis=-1)
        square = length**2 + (out**2).sum(-1)
        norms.append(after.mean())
        growths.append((after / length).mean())
        draws = []
        for _ in range(config.n_draws):
            order = rng.permutation(x.shape[-1])
            signs = rng.choice([-1.0, 1.0], size=x.shape[-1])
            along = (x * (out[:, order] * signs)).sum(-1)
            draws.append((np.sqrt(np.maximum(square + 2 * along, 0)) / length).mean())
        nulls.append(draws)
    return np.array(norms), np.array(growths), np.array(nulls)


def _norm_rows(
    model: Any, norms: Float[np.ndarray, "prompt site"], seed: int, common: dict[str, int]
) -> Iterator[dict[str, Any]]:
    for index, (kind, layer) in enumerate(_sites(model)):
        values = norms[:, index]
        yield {
            "measure": "norm",
            "layer": layer,
            "site": kind,
            "value": values.mean(),
            **bootstrap(values, seed=seed),
            "unit": "length",
            **common,
        }


def _growth_rows(
    model: Any,
    growths: Float[np.ndarray, "prompt site"],
    nulls: Float[np.ndarray, "prompt site draw"],
    seed: int,
    common: dict[str, int],
) -> Iterator[dict[str, Any]]:
    for index, (kind, layer) in enumerate(_sites(model)):
        yield {
            "measure": "growth",
            "layer": layer,
            "site": kind,
            **beside_null(float(growths[:, index].mean()), nulls[:, index].mean(axis=0)),
            **bootstrap(growths[:, index], seed=seed),
            "unit": "ratio",
            **common,
        }


PROBE = ResidualNorms()
