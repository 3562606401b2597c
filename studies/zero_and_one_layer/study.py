"""What do attention-only models of no layer and of one layer hold?

Claims   attn-0l is the bigram table of its text, nearly as good as counting.
         The heads of attn-1l that copy by their eigenvalues help repeated tokens alone and hurt new ones.
         Skip-trigrams read from weights are really raised by their head; many are not true of text, as the
         bugs that true ones force.
Run      python -m studies.zero_and_one_layer
Result   results/*.json, quoted in README.md; figure.png
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from studies.findings import save_findings, write_numbers
from studies.zero_and_one_layer import bigrams, numbers
from studies.zero_and_one_layer.counts import read_counts
from studies.zero_and_one_layer.heads import copying_table
from studies.zero_and_one_layer.trigrams import (
    bug_summary,
    confirmed_and_bugs,
    listed_trigrams,
    summary,
)
from workbench.models import load
from workbench.results import model_hash, provenance
from workbench.training.corpora import encoded
from workbench.training.held_out import held_out_text
from workbench.weights import effective_weights

HERE = Path(__file__).parent
COPIES = 0.9


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        n_fit: steps for which the factors of `attn-0l` are trained on with the counts themselves.
        n_null: random heads behind each copying score.
        n_rows: contexts of 256 tokens on which heads are removed.
        n_heads: heads whose skip-trigrams are listed, from the first on.
        k: skip-trigrams listed per head.
        k_deep: skip-trigrams per head among which confirmed ones are sought for bugs.
        n_measured: places in text at which a source is hidden.
    """

    bigram_model: str = "attn-0l"
    head_model: str = "attn-1l"
    n_fit: int = 150
    n_null: int = 200
    n_rows: int = 64
    n_heads: int = 8
    k: int = 50
    k_deep: int = 2000
    n_measured: int = 16
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables; their columns are explained where they are made."""

    losses: pd.DataFrame
    agreement: pd.DataFrame
    by_count: pd.DataFrame
    copying: pd.DataFrame
    trigrams: pd.DataFrame
    trigram_shares: pd.DataFrame
    bugs: pd.DataFrame
    bug_shares: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        loss = self.losses.set_index("name")["loss"]
        divergence = self.agreement.set_index("name")["divergence"]
        copies = self.copying["score"] > COPIES
        alone = (self.copying["cost_repeated_low"] > 0) & (self.copying["cost_new_high"] < 0)
        bug = self.bug_shares.set_index("kind").loc["bug"]
        share_lost = divergence[bigrams.MODEL] / divergence[bigrams.UNIGRAM]
        found = {
            "attn-0l is within 0.03 nats of counting the same text": loss[bigrams.MODEL]
            < loss[bigrams.SEEN] + 0.03,
            "it holds 95 % of what bigrams say beyond unigrams": share_lost < 0.05,
            "its rank is enough": loss[bigrams.TRAINED_ON] < loss[bigrams.CORPUS] + 0.005,
            "a head copies by its weights exactly if it does by behaviour": (copies == alone).all(),
            "bugs are raised": bug["raised"] > 0.9,
            "most bugs are never true": bug["never_followed"] > 0.5,
        }
        return {claim: bool(holds) for claim, holds in found.items()}


def bigram_findings(config: Config) -> dict[str, pd.DataFrame]:
    """The tables about `attn-0l`."""
    model = load(config.bigram_model)
    counts = read_counts()
    text = encoded(model.tokenizer, held_out_text())
    tables = bigrams.distributions(effective_weights(model), counts, config.n_fit)
    return {
        "losses": bigrams.losses(tables, counts, text, config.seed),
        "agreement": bigrams.agreement(tables, counts, text, config.seed),
        "by_count": bigrams.by_count(tables, counts),
    }


def head_findings(config: Config) -> dict[str, pd.DataFrame]:
    """The tables about `attn-1l`."""
    model = load(config.head_model)
    heads = effective_weights(model).heads[: config.n_heads]
    settings = (config.n_measured, config.seed)
    listed = listed_trigrams(model, heads, config.k, *settings)
    judged = confirmed_and_bugs(model, heads, config.k_deep, *settings)
    return {
        "copying": copying_table(model, config.n_rows, config.n_null, config.seed),
        "trigrams": listed,
        "trigram_shares": summary(listed),
        "bugs": judged,
        "bug_shares": bug_summary(judged),
    }


def study(config: Config) -> Findings:
    """Every number of the README; takes about two minutes of one core."""
    return Findings(**bigram_findings(config), **head_findings(config))


def main() -> None:
    """Measure, draw, and write both into this folder."""
    from studies.zero_and_one_layer.figure import draw

    config = Config()
    findings = study(config)
    hashes = {name: model_hash(load(name)) for name in (config.bigram_model, config.head_model)}
    made_by = provenance(study=HERE.name, config=asdict(config), model_hash=hashes)
    save_findings(findings, HERE / "results", made_by)
    write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, HERE / "figure.png")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")
