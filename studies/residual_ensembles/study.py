"""Does a transformer behave like an ensemble of short paths, as residual networks for images do?

Claims   Most single sublayers of SmolLM2 can be deleted at little cost, a few cannot; of few sublayers, none.
         The frozen network, whose paths really are an ensemble, foretells what a deletion costs the last
         layer exactly where there are no norms, and less and less the more is behind it.
         Deleting or swapping more costs more, smoothly on the median.
         Gradient comes through paths shorter than most are; but in SmolLM2 paths of one length cancel
         each other, and lengths cancel lengths: no set of short ones is the gradient.
Run      python -m studies.residual_ensembles
Result   results/*.json, quoted in README.md; figure.png
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from studies.findings import save_findings, write_numbers
from studies.residual_ensembles import numbers
from studies.residual_ensembles.measures import (
    Texts,
    deletion_table,
    draw_table,
    length_table,
    summary_table,
)
from studies.sentences import SENTENCES, held_out_rows
from workbench.models import load
from workbench.models.protocol import Model
from workbench.results import model_hash, provenance

HERE = Path(__file__).parent
DEEP = "smollm2"


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        models: of which SmolLM2 reads sentences, the others held-out code.
        n_rows: contexts of 256 tokens.
        counts: sublayers deleted, or swaps made, at once.
        n_draws: of each.
        n_texts: of those above on which draws are measured.
        n_length_texts: and path lengths.
        n_samples: single paths of each length whose gradients are measured; all, if there are fewer.
    """

    models: tuple[str, ...] = ("attn-2l", "mlp-2l", DEEP)
    n_rows: int = 8
    counts: tuple[int, ...] = (1, 2, 4, 8, 16)
    n_draws: int = 9
    n_texts: int = 2
    n_length_texts: int = 1
    n_samples: int = 16
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables; their columns are explained where they are made.

    single   each sublayer deleted by itself
    draws    several deleted, or swapped
    lengths  gradient of the loss by path length
    models   one row per model
    """

    single: pd.DataFrame
    draws: pd.DataFrame
    lengths: pd.DataFrame
    models: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        models = self.models.set_index("model")
        small, deep = models.drop(index=DEEP), models.loc[DEEP]
        last = self.single.query("model == 'attn-2l'").set_index("lesion")
        draws = self.draws.set_index(["model", "kind", "count"])["true"]
        lengths = self.lengths[self.lengths["model"] == DEEP]
        return {
            "SmolLM2: four fifths of the sublayers each cost under 5 % of what is gained": bool(
                deep["cheap"] > 0.8 * deep["n_sublayers"]
                and deep["worst_cost"] > 0.5 * deep["gained"]
            ),
            "of two layers nothing can go at that price": bool((small["cheap"] == 0).all()),
            "without norms the last layer's deletion is foretold exactly, the first's is not": bool(
                abs(last.loc["attn 1", "true"] - last.loc["attn 1", "frozen"]) < 1e-4
                and last.loc["attn 0", "true"] > 2 * last.loc["attn 0", "frozen"]
            ),
            "SmolLM2: more deleted or swapped costs more": all(
                draws.loc[(DEEP, kind)].is_monotonic_increasing for kind in ("deleted", "swapped")
            ),
            "SmolLM2: gradient comes through paths shorter than most": bool(
                deep["length_effective"] < 0.75 * deep["length_counted"]
                and deep["length_whole"] < 0.75 * deep["length_counted"]
            ),
            "and they cancel: within lengths, and lengths with lengths": bool(
                lengths.loc[lengths["n_paths"] > 1e6, "coherence"].max() < 0.1
                and deep["cancellation"] > 100
            ),
        }


def study(config: Config) -> Findings:
    """Every number of the README; takes about three minutes of one core."""
    single, draws, lengths, uniform = [], [], [], {}
    for name in config.models:
        model = load(name)
        texts = texts_of(model, config)
        seed = config.seed
        # In SmolLM2 streams without their norms' answer grow until they overflow.
        single.append(deletion_table(model, texts, hold_norms=name != DEEP, seed=seed))
        draws.append(
            draw_table(model, texts[: config.n_texts], config.counts, config.n_draws, seed)
        )
        lengths.append(length_table(model, texts[: config.n_length_texts], config.n_samples, seed))
        uniform[name] = math.log(model.cfg.d_out)
    of_single, of_lengths = (pd.concat(some, ignore_index=True) for some in (single, lengths))
    return Findings(
        single=of_single,
        draws=pd.concat(draws, ignore_index=True),
        lengths=of_lengths,
        models=summary_table(of_single, of_lengths, uniform),
    )


def texts_of(model: Model, config: Config) -> Texts:
    """What a model reads."""
    return SENTENCES if model.name == DEEP else held_out_rows(model, config.n_rows)


def main() -> None:
    """Measure, draw, and write both into this folder."""
    from studies.residual_ensembles.figure import draw

    config = Config()
    findings = study(config)
    hashes = {name: model_hash(load(name)) for name in config.models}
    made_by = provenance(study=HERE.name, config=asdict(config), model_hash=hashes)
    save_findings(findings, HERE / "results", made_by)
    write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, HERE / "figure.png")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")
