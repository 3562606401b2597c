"""The study of growing channels: its numbers are those kept, and growth in it changes no logit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from studies.findings import read_findings, read_numbers
from studies.growing_channels import numbers
from studies.growing_channels.measures import (
    gap_row,
    loss_row,
    summary_table,
    use_rows,
    use_table,
)
from studies.growing_channels.study import HERE, KEPT_SEED, KEPT_WAYS, Config, Findings
from studies.growing_channels.trained import GROWN, folder_of, trained, untrained
from studies.independent_heads.measures import held_out
from studies.independent_heads.trained import REPEATS, TEXT
from tests.studies.agreement import assert_same_numbers
from workbench import load
from workbench.training.growth import add_channels
from workbench.training.starts import language_model_start

KEYS = ["task", "way", "seed"]


@pytest.fixture(scope="module")
def kept() -> Findings:
    return read_findings(Findings, HERE / "results")


@pytest.fixture(scope="module")
def models():
    return {way: load(str(HERE / "models" / f"{way}-{KEPT_SEED}")) for way in KEPT_WAYS}


def test_the_readme_quotes_the_kept_numbers(kept):
    assert read_numbers(HERE / "README.md") == numbers.blocks(kept)


def test_every_claim_holds(kept):
    assert kept.holds and all(kept.holds.values()), kept.holds


def test_the_kept_models_have_the_kept_losses_and_uses(kept, models):
    config = Config()
    wide = None
    for way, model in models.items():
        row, sums = loss_row(REPEATS, way, KEPT_SEED, model, config)
        wide = sums if wide is None else wide
        assert_same_numbers(pd.DataFrame([row]), kept.losses, KEYS)
        gap = gap_row(REPEATS, way, KEPT_SEED, sums, wide, config)
        assert_same_numbers(pd.DataFrame([gap]), kept.gaps, KEYS)
    used = use_rows(REPEATS, way, KEPT_SEED, model, config)
    assert_same_numbers(pd.DataFrame(used), kept.used, [*KEYS, "without"])


def test_the_summaries_are_those_of_the_kept_tables(kept):
    assert_same_numbers(summary_table(kept.losses, kept.gaps), kept.summary, ["task", "way"])
    assert_same_numbers(use_table(kept.used), kept.use, ["task", "way", "without"])


def test_shares_of_the_two_halves_are_the_whole(kept):
    halves = kept.used[kept.used["without"] != "random"].groupby(KEYS)["share"].sum()
    np.testing.assert_allclose(halves, 1, rtol=1e-4)


@pytest.mark.parametrize("way", GROWN)
@pytest.mark.parametrize("task", [REPEATS, TEXT])
def test_growth_in_the_study_changes_no_logit(task, way):
    entry, _ = GROWN[way]
    model = untrained(task, 16, 0).eval()
    grown = add_channels(model, 16, entry=entry, start=language_model_start, seed=1).model.eval()
    tokens = torch.randint(0, 64, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (grown(tokens) - model(tokens)).abs().max() < 1e-6


def test_all_that_grows_shares_its_first_half_and_frozen_channels_stay(tmp_path):
    config = replace(Config(), steps=4)
    models = {way: trained(REPEATS, way, 0, config, tmp_path) for way in ("narrow", *GROWN)}
    assert models["narrow"].cfg.d_model == 16
    assert len({folder_of(REPEATS, way, 0, tmp_path) for way in GROWN}) == 1
    folder = folder_of(REPEATS, "grown", 0, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "0-start",
        "1-frozen",
        "1-grown",
        "1-unread",
        "1-unread-frozen",
    ]
    first = load(str(folder / "0-start"))
    for way, (_, is_frozen) in GROWN.items():
        assert models[way].cfg.d_model == 32
        assert torch.equal(models[way].W_E[:, :16], first.W_E) == is_frozen
        assert torch.equal(models[way].W_U[:16], first.W_U) == is_frozen


def test_losing_all_channels_leaves_one_answer_for_every_place(models):
    model, config = models["grown"], replace(Config(), width=32, n_rows=16, n_halves=1)
    rows = pd.DataFrame(use_rows(REPEATS, "grown", 0, model, replace(config, n_halves=1)))
    old = rows.set_index("without").loc["old"]
    assert old["share"] == pytest.approx(1)
    logits = model(held_out(REPEATS, 16).tokens)
    assert old["cost"] > 2 and logits.std(1).min() > 0


def test_the_kept_models_are_small():
    for way in KEPT_WAYS:
        folder = HERE / "models" / f"{way}-{KEPT_SEED}"
        assert sum(path.stat().st_size for path in folder.iterdir()) < 110_000


def test_the_figure_is_drawn_from_the_kept_numbers(kept, tmp_path):
    pytest.importorskip("matplotlib")
    from studies.growing_channels.figure import draw

    draw(kept, tmp_path / "figure.png")
    assert 20_000 < (tmp_path / "figure.png").stat().st_size < 300_000
