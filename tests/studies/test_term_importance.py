"""The study of term importance: its numbers are those kept; small parts of them come out anew."""

from dataclasses import replace

import numpy as np
import pytest

from studies.findings import read_findings, read_numbers
from studies.sentences import SENTENCES, held_out_rows
from studies.term_importance import numbers
from studies.term_importance.study import HERE, Config, Findings, study
from tests.studies.agreement import assert_same_numbers
from workbench import load
from workbench.paths.ablation import order_ablation


@pytest.fixture(scope="module")
def kept() -> Findings:
    return read_findings(Findings, HERE / "results")


def test_the_readme_quotes_the_kept_numbers(kept):
    assert read_numbers(HERE / "README.md") == numbers.blocks(kept)


def test_every_claim_holds(kept):
    assert kept.holds and all(kept.holds.values()), kept.holds


@pytest.mark.slow
def test_a_fresh_run_finds_the_kept_terms(kept):
    found = study(replace(Config(), models=("attn-2l",), sentences=()))
    assert_same_numbers(found.orders, kept.orders, ["model", "counted", "order"])
    assert_same_numbers(found.parts, kept.parts, ["model", "counted", "part"])


def test_a_fresh_run_of_a_few_texts_is_like_the_kept_one(kept):
    """Fewer texts, so another mean: inside the kept intervals, widened by their own width."""
    model = load("attn-2l")
    rows = held_out_rows(model, Config().n_rows)[::4]
    table = order_ablation(model, rows, detail="none").table()
    of_model = kept.orders.query("model == 'attn-2l'").reset_index(drop=True)
    width = of_model["marginal_high"] - of_model["marginal_low"]
    assert (table["marginal"] > of_model["marginal_low"] - 2 * width).all()
    assert (table["marginal"] < of_model["marginal_high"] + 2 * width).all()


@pytest.mark.slow
def test_a_fresh_run_finds_the_kept_orders_of_a_deep_model(kept, smollm2):
    by_heads = order_ablation(smollm2, SENTENCES, counted="heads", detail="none")
    of_heads = kept.orders.query("model == 'smollm2' and counted == 'heads'")
    np.testing.assert_allclose(by_heads.table()["loss"], of_heads["loss"], rtol=2e-3)


def test_marginals_and_guessing_add_up_to_the_model(kept):
    sums = kept.orders.groupby(["model", "counted"])["marginal"].sum()
    facts = kept.models.set_index(["model", "counted"])
    np.testing.assert_allclose(
        (facts["uniform"] + sums[facts.index]).to_numpy(), facts["model_loss"], atol=1e-2
    )


def test_the_paper_s_terms_are_those_of_two_layers_of_twelve_heads():
    counts = [count for count, _ in numbers.PAPER_ORDERS.values()]
    assert counts == [1, 2 * 12, 12 * 12]


def test_the_figure_is_drawn_from_the_kept_numbers(kept, tmp_path):
    pytest.importorskip("matplotlib")
    from studies.term_importance.figure import draw

    draw(kept, tmp_path / "figure.png")
    assert 20_000 < (tmp_path / "figure.png").stat().st_size < 300_000
    assert (HERE / "figure.png").stat().st_size < 300_000
