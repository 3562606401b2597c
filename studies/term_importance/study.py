"""How much of a model's loss is due to terms of order 0, 1, 2, …, with patterns and norms held?

Claims   In attn-2l pairs of heads have little, and single heads of the second layer have nearly all that
         single heads have, as in Elhage et al. 2021; but the direct path has as much as all heads.
         With MLPs and norms it is otherwise: in mlp-2l order 2 has most, and order 0 is worse than guessing.
         In SmolLM2 all terms up to any order from 4 to 18 are worse than guessing. Counted by heads alone,
         with MLPs as the background, three orders are the model.
Run      python -m studies.term_importance
Result   results/*.json or .parquet, quoted in README.md; figure.png
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from studies.findings import save_findings, write_numbers
from studies.sentences import SENTENCES, held_out_rows
from studies.term_importance import numbers
from workbench.models import load
from workbench.paths.ablation import OrderAblation, order_ablation
from workbench.results import model_hash, provenance

HERE = Path(__file__).parent
DEEP = "smollm2"


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        models: bundled ones, measured on held-out code with every order-1 term.
        counted: by model, what adds to an order.
        n_rows: contexts of 256 tokens.
        sentences: what SmolLM2 reads; none leaves it out.
    """

    models: tuple[str, ...] = ("attn-1l", "attn-2l", "mlp-2l")
    counted: tuple[str, ...] = ("all", "heads")
    n_rows: int = 32
    sentences: tuple[str, ...] = SENTENCES
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables.

    orders  model counted order: loss up to it, marginal, with intervals over contexts or sentences
    parts   model part: its order-1 term added to order 0 (alone), and to all others of order 1 (on_top)
    models  model counted: tokens, loss of guessing and of the model, residual of the last order
    """

    orders: pd.DataFrame
    parts: pd.DataFrame
    models: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        marginal = self._by_order("attn-2l", "marginal")
        on_top = self.parts.query("model == 'attn-2l'").set_index("part")["on_top"]
        mlp = self._by_order("mlp-2l", "marginal")
        facts = self.models.set_index(["model", "counted"])
        deep, heads = self._by_order(DEEP, "loss"), self._by_order(DEEP, "loss", "heads")
        uniform, own = facts.loc[(DEEP, "all"), ["uniform", "model_loss"]]
        return {
            "attn-2l: pairs of heads have little, in all and per term": bool(
                -marginal[1] > 5 * -marginal[2] > 0 and marginal[1] / 8 < 5 * marginal[2] / 16
            ),
            "attn-2l: the direct path has as much as single heads, unlike the paper's": bool(
                0.8 < marginal[0] / marginal[1] < 1.25
            ),
            "attn-2l: of order 1 the second layer has far more than the first": bool(
                on_top["attn 1"] < 5 * on_top["attn 0"] < 0
            ),
            "mlp-2l: order 0 is worse than guessing, order 2 has most": bool(
                mlp[0] > 0 and mlp.idxmin() == 2
            ),
            "SmolLM2: all up to any order from 4 to 18 is worse than guessing": bool(
                (deep.loc[4:18] > uniform).all() and deep.max() > 10 * uniform
            ),
            "SmolLM2 by heads: three orders are within a hundredth of what is gained": bool(
                abs(heads[3] - own) < 0.01 * (uniform - own)
            ),
            "the last order's loss is the model's own": bool(self.models["residual"].max() < 1e-3),
        }

    def _by_order(self, model: str, column: str, counted: str = "all") -> pd.Series:
        rows = self.orders.query("model == @model and counted == @counted")
        return rows.set_index("order")[column]


def study(config: Config) -> Findings:
    """Every number of the README; takes about a minute of one core."""
    found: list[OrderAblation] = []
    for name in config.models:
        model = load(name)
        rows = held_out_rows(model, config.n_rows)
        has_mlps = any(block.has_mlp for block in model.blocks)
        for counted in config.counted if has_mlps else ("all",):
            detail = "component" if counted == "all" else "none"
            found.append(
                order_ablation(model, rows, counted=counted, detail=detail, seed=config.seed)
            )
    if config.sentences:
        model = load(DEEP)
        found += [
            order_ablation(
                model, config.sentences, counted=counted, detail="none", seed=config.seed
            )
            for counted in config.counted
        ]
    return Findings(
        orders=_joined(found, [one.table() for one in found]),
        parts=_joined(found, [one.part_table() for one in found]),
        models=pd.DataFrame([_facts(one) for one in found]),
    )


def _joined(found: list[OrderAblation], tables: list[pd.DataFrame]) -> pd.DataFrame:
    named = [
        table.assign(model=one.model_name, counted=one.counted)
        for one, table in zip(found, tables, strict=True)
        if len(table)
    ]
    return pd.concat(named, ignore_index=True)


def _facts(one: OrderAblation) -> dict[str, object]:
    weights = one.n_tokens / one.n_tokens.sum()
    return {
        "model": one.model_name,
        "counted": one.counted,
        "n_orders": one.loss.shape[1],
        "n_prompts": len(one.loss),
        "n_tokens": int(one.n_tokens.sum()),
        "uniform": one.uniform,
        "model_loss": float(one.model_loss @ weights),
        "residual": one.residual,
    }


def main() -> None:
    """Measure, draw, and write both into this folder."""
    from studies.term_importance.figure import draw

    config = Config()
    findings = study(config)
    hashes = {name: model_hash(load(name)) for name in (*config.models, DEEP)}
    made_by = provenance(study=HERE.name, config=asdict(config), model_hash=hashes)
    save_findings(findings, HERE / "results", made_by)
    write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, HERE / "figure.png")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")
