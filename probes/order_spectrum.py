"""What paths of each length do for the next token: loss with the terms up to some order, and logit by order.

    loss(n)     loss read from X[0] + … + X[n]          X[n]: what passed through exactly n components
    marginal(n) loss(n) - loss(n - 1)                   order 0 against guessing
    logit(n)    what all paths of order n add to the right token's logit, minus the mean over the vocabulary
    alone       loss of order 0 with one component's term of order 1, minus that of order 0

(`workbench.paths`: one pass with patterns, norm scales and gates held is exactly affine; Elhage et al. 2021,
"A Mathematical Framework for Transformer Circuits", term importance analysis.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.configs import check_choice, check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.direct_logit_attribution import no_next_token
from probes.facts import ModelFacts
from probes.nulls import bootstrap

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.paths.ablation import OrderAblation

COUNTED = ("all", "heads", "mlps")
# Terms of order 1 are carried through all layers one by one: in a deep model that costs more than the rest.
MOST_COMPONENTS = 64


@dataclass(frozen=True)
class OrderConfig:
    """How much text is read, and what counts.

    Args:
        counted: which components add to a path's order: all, heads or mlps; the others act, uncounted.
    """

    n_prompts: int = 8
    n_tokens: int = 32
    counted: str = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 1, 10_000)
        check_whole("n_tokens", self.n_tokens, 3, 4096)
        check_choice("counted", self.counted, COUNTED)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class OrderSpectrumProbe(Probe):
    """Loss and logit by the order of paths."""

    name = "order-spectrum"
    title = "Paths: what each order adds"
    version = 1
    question = "How much of the prediction comes from paths through no component, one, two, …?"
    method = (
        "One pass with attention patterns, norm scales and MLP gates held fixed is exactly affine, so its "
        "stream is a sum over orders, `X = X[0] + X[1] + …`, X[n] being what passed through exactly n "
        "components. `loss(n)` is read from `X[0] + … + X[n]`, `marginal(n) = loss(n) − loss(n − 1)` (order 0 "
        "against guessing), and `logit(n) = ⟨X[n], W_U[next] − mean W_U⟩` at the last position, X[n] over the "
        "final norm's scale; `alone` is the change of order 0's loss by one component's term of order 1. The "
        "residual is the largest distance of the sums from the model's own numbers. Intervals draw prompts "
        "again (bootstrap). Source: Elhage et al. 2021, term importance analysis."
    )
    limits = (
        "Held patterns and gates came about by all paths together: a low order is not a smaller model. With "
        "MLPs and norms, losses of single orders may be worse than guessing. There is no null, so no p."
    )
    needs = (
        "Sites pattern, norm scales and gates, which are held; text; causal transformers with a "
        "tokenizer, norms not after the sums."
    )
    kind = "data"
    Config = OrderConfig

    def refuses(self, facts: ModelFacts) -> str:
        """No text, or no next token."""
        return no_next_token(facts)

    def cost(self, facts: ModelFacts, data: DataFacts, config: OrderConfig) -> Cost:
        """Every order through every sublayer, and the logits of every order."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        positions = config.n_prompts * n_tokens
        sublayers = facts.n_layers * (1 + facts.has_mlp)
        layers = max(0, facts.n_params - facts.d_model * facts.d_out)
        carried = positions * (8 + sublayers) * 2 * layers / 1.5e10
        if facts.n_layers * (facts.n_heads + facts.has_mlp) <= MOST_COMPONENTS:
            carried *= 3
        logits = positions * (sublayers + 2) * facts.d_out * (2 * facts.d_model / 1.5e10 + 1e-8)
        fixed = 0.1 + config.n_prompts * (0.05 + 0.004 * sublayers)
        held = n_tokens * (facts.d_model * (sublayers + 1) * 16 + facts.d_out * 16)
        return Cost(fixed + carried + logits, held + 8e7)

    def run(
        self, model: Any, data: ProbeData, config: OrderConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """Loss, marginal and logit of each order, the terms of order 1, and the residuals."""
        from workbench.paths.ablation import order_ablation

        tokens = data.tokens(
            model, config.n_prompts, min(config.n_tokens, model.cfg.n_ctx), config.seed
        )
        n_components = sum(
            model.n_heads_in(layer) + (not model.cfg.attn_only)
            for layer in range(model.cfg.n_layers)
        )
        found = order_ablation(
            model,
            tokens,
            counted=config.counted,
            detail="component" if n_components <= MOST_COMPONENTS else "none",
            seed=config.seed,
            progress=lambda done, of: progress(0.7 * done / of, "loss by order"),
        )
        logits, residuals = [], []
        for index, row in enumerate(tokens):
            orders, residual = _logits(model, row, config.counted)
            logits.append(orders)
            residuals.append(residual)
            progress(0.7 + 0.3 * (index + 1) / len(tokens), "logit by order")
        rows = [
            *_order_rows(found, np.stack(logits), config),
            *_part_rows(found, config),
            _residual("loss", found.residual, len(tokens), config.seed),
            _residual("logit", float(max(residuals)), len(tokens), config.seed),
        ]
        return findings_table(rows)


def _logits(model: Any, row: "Tensor", counted: str) -> tuple[Float[np.ndarray, " order"], float]:
    """What each order adds to the last token's logit, read where it is predicted."""
    import workbench

    frozen = workbench.freeze(model, row[None, :-1])
    spectrum = workbench.order_spectrum(
        frozen, workbench.logit_direction(frozen, int(row[-1]), distractor="mean"), counted=counted
    )
    return np.asarray(spectrum.orders, dtype=np.float64), abs(float(spectrum.residual))


def _order_rows(
    found: "OrderAblation", logits: Float[np.ndarray, "prompt order"], config: OrderConfig
) -> Iterator[dict[str, Any]]:
    named = {
        "loss": (found.loss, "nats"),
        "marginal": (found.marginal, "nats"),
        "logit": (logits, "logits"),
    }
    for measure, (values, unit) in named.items():
        for order in range(values.shape[1]):
            yield {
                "measure": measure,
                "item": f"order {order:02d}",
                "value": values[:, order].mean(),
                **bootstrap(values[:, order], seed=config.seed),
                "n": len(values),
                "seed": config.seed,
                "unit": unit,
            }


def _part_rows(found: "OrderAblation", config: OrderConfig) -> Iterator[dict[str, Any]]:
    for index, part in enumerate(found.parts):
        for measure, values in (("alone", found.alone), ("on top", found.on_top)):
            yield {
                "measure": measure,
                "layer": part.layer,
                "head": part.head,
                "item": part.label,
                "value": values[:, index].mean(),
                **bootstrap(values[:, index], seed=config.seed),
                "n": len(values),
                "seed": config.seed,
                "unit": "nats",
            }


def _residual(of: str, value: float, n: int, seed: int) -> dict[str, Any]:
    unit = "nats" if of == "loss" else "logits"
    return {"measure": "residual", "item": of, "value": value, "n": n, "seed": seed, "unit": unit}


PROBE = OrderSpectrumProbe()
