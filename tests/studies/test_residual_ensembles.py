"""The study of residual ensembles: its numbers are those kept, and small parts come out anew."""

import numpy as np
import pytest

from studies.findings import read_findings, read_numbers
from studies.residual_ensembles import numbers
from studies.residual_ensembles.measures import (
    deletion_table,
    draw_table,
    length_table,
    summary_table,
)
from studies.residual_ensembles.study import HERE, Config, Findings, texts_of
from tests.studies.agreement import assert_same_numbers
from workbench import load


@pytest.fixture(scope="module")
def kept() -> Findings:
    return read_findings(Findings, HERE / "results")


def test_the_readme_quotes_the_kept_numbers(kept):
    assert read_numbers(HERE / "README.md") == numbers.blocks(kept)


def test_every_claim_holds(kept):
    assert kept.holds and all(kept.holds.values()), kept.holds


def test_a_fresh_run_finds_the_kept_deletions_and_lengths(kept):
    config, model = Config(), load("attn-2l")
    texts = texts_of(model, config)
    single = deletion_table(model, texts, hold_norms=True, seed=config.seed)
    assert_same_numbers(single, kept.single, ["model", "lesion"])
    lengths = length_table(model, texts[: config.n_length_texts], config.n_samples, config.seed)
    assert_same_numbers(lengths, kept.lengths, ["model", "length"])


@pytest.mark.slow
def test_a_fresh_run_finds_the_kept_draws(kept):
    config, model = Config(), load("mlp-2l")
    texts = texts_of(model, config)[: config.n_texts]
    found = draw_table(model, texts, config.counts, config.n_draws, config.seed)
    assert_same_numbers(found, kept.draws, ["model", "kind", "count"])


@pytest.mark.slow
def test_a_fresh_run_finds_a_kept_lesion_of_a_deep_model(kept, smollm2):
    texts = texts_of(smollm2, Config())
    draws = draw_table(smollm2, texts[:2], (1,), Config().n_draws, Config().seed)
    of_one = kept.draws.query("model == 'smollm2' and count == 1")
    # The first count of a seed draws the same whatever counts come behind it.
    np.testing.assert_allclose(draws["true"], of_one["true"], rtol=2e-3)


def test_the_summary_is_that_of_the_kept_tables(kept):
    uniform = dict(zip(kept.models["model"], kept.models["uniform"], strict=True))
    found = summary_table(kept.single, kept.lengths, uniform)
    assert_same_numbers(found, kept.models, ["model"])


def test_shares_of_lengths_are_shares_and_paths_are_binomial(kept):
    sums = kept.lengths.groupby("model")[["counted", "effective"]].sum()
    np.testing.assert_allclose(sums, 1, rtol=1e-4)
    deep = kept.lengths.query("model == 'smollm2'")
    assert deep["n_paths"].sum() == pytest.approx(2.0**60, rel=1e-4)


def test_the_figure_is_drawn_from_the_kept_numbers(kept, tmp_path):
    pytest.importorskip("matplotlib")
    from studies.residual_ensembles.figure import draw

    draw(kept, tmp_path / "figure.png")
    assert 20_000 < (tmp_path / "figure.png").stat().st_size < 300_000
    assert (HERE / "figure.png").stat().st_size < 300_000
