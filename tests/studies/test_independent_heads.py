"""The study of heads trained in turn: its numbers are those kept, its ways train what they say."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from studies.findings import read_findings, read_numbers
from studies.independent_heads import numbers
from studies.independent_heads.measures import (
    curve_rows,
    gap_row,
    head_table,
    held_out,
    likeness_rows,
    losses,
    rounded,
    scored_rows,
    summary_table,
    untrained_likeness,
)
from studies.independent_heads.study import HERE, KEPT_SEED, KEPT_WAYS, Config, Findings
from studies.independent_heads.trained import LAYERS, REPEATS, Stage, trained, untrained
from studies.induction_heads.composing import Cut
from tests.studies.agreement import assert_same_numbers
from workbench import load
from workbench.sites import Head
from workbench.training.growth import SHARED
from workbench.training.tasks import UNSCORED, position_losses
from workbench.weights import effective_weights

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


def test_the_kept_models_have_the_kept_losses_heads_and_likeness(kept, models):
    config, heads = Config(), LAYERS[REPEATS]
    joint = losses(models["joint"], held_out(REPEATS, config.n_rows))
    for way, model in models.items():
        steps = kept.curves.query("task == 'repeats' and way == @way and seed == 0")["steps"].max()
        stages = [Stage(heads, int(steps), model)]
        rows, last = curve_rows(REPEATS, way, KEPT_SEED, stages, config)
        assert_same_numbers(pd.DataFrame(rows), kept.curves, [*KEYS, "steps"])
        gap = pd.DataFrame([gap_row(REPEATS, way, KEPT_SEED, last, joint)])
        assert_same_numbers(gap, kept.gaps, KEYS)
        found = head_table(REPEATS, way, KEPT_SEED, model, config)
        assert_same_numbers(found, kept.heads, [*KEYS, "layer", "head"])
        alike = pd.DataFrame(likeness_rows(REPEATS, way, KEPT_SEED, model))
        assert_same_numbers(alike, kept.likeness, [*KEYS, "layer"])


def test_heads_that_nothing_was_taught_are_as_alike_as_was_kept(kept):
    found = pd.DataFrame(untrained_likeness(REPEATS, LAYERS[REPEATS], 0))
    assert_same_numbers(found, kept.likeness, [*KEYS, "layer"])


def test_the_summary_is_that_of_the_kept_tables(kept):
    found = summary_table(kept.curves, kept.gaps, kept.heads, kept.likeness)
    assert_same_numbers(found, kept.summary, ["task", "way"])


def test_ways_that_are_compared_have_equal_parameters_and_steps(kept):
    table = kept.summary[~kept.summary["way"].isin(["patient", "given"])]
    for _, own in table.groupby("task"):
        assert own["parameters"].nunique() == own["steps"].nunique() == 1


def test_in_turn_each_head_stays_what_its_stage_made_of_it(tmp_path):
    config = replace(Config(), steps=2)
    stages = trained(REPEATS, "greedy", 0, config, tmp_path)
    assert [sum(stage.heads) for stage in stages] == list(range(1, 9))
    assert [stage.steps for stage in stages] == list(range(2, 18, 2))
    for number, stage in enumerate(stages):
        layer, head = divmod(number, 4)
        made = stage.model.blocks[layer].attn.W_V[head]
        for later in stages[number:]:
            assert torch.equal(later.model.blocks[layer].attn.W_V[head], made)
    assert not torch.equal(stages[0].model.W_E, stages[-1].model.W_E)
    closed = trained(REPEATS, "closed", 0, config, tmp_path)
    assert torch.equal(closed[0].model.W_E, closed[-1].model.W_E)
    assert torch.equal(closed[0].model.W_E, stages[0].model.W_E)


def test_a_given_layer_is_that_of_the_joint_model(tmp_path):
    config = replace(Config(), steps=1)
    *_, joint = trained(REPEATS, "joint", 0, config, tmp_path)
    (given,) = trained(REPEATS, "given", 0, config, tmp_path)
    taken, source = given.model.state_dict(), joint.model.state_dict()
    same = {name for name in taken if torch.equal(taken[name], source[name])}
    assert {name for name in taken if name.startswith(("embed", "pos_embed", "blocks.0"))} == same
    (layers,) = trained(REPEATS, "layers", 0, config, tmp_path)
    assert layers.heads == (4, 4) and layers.steps == joint.steps == 8
    assert set(SHARED) == {"embed.*", "pos_embed.*", "unembed.*"}


def test_heads_apart_are_less_alike_than_heads_that_are_not(kept):
    table = kept.summary.set_index(["task", "way"])["likeness"]
    assert table[REPEATS, "apart"] < table[REPEATS, "greedy"]


def test_sums_over_rows_are_the_library_s_mean():
    model = rounded(untrained(REPEATS, (2, 1), 0))
    batch = held_out(REPEATS, 5)
    found = losses(model, batch)
    assert found.counts.sum() == (batch.targets != UNSCORED).sum()
    mean = position_losses(model, batch).nanmean()
    assert found.sums.sum() / found.counts.sum() == pytest.approx(float(mean), rel=1e-5)
    assert (found.right <= found.counts).all()


def test_induction_of_the_patient_model_reads_its_near_head(models):
    model = models["patient"]
    cut, reader = Cut(model, effective_weights(model), scored_rows(REPEATS, 32)), Head(1, 0)
    intact = cut.scores(reader).mean()
    falls = [1 - cut.scores(reader, (Head(0, head), "K")).mean() / intact for head in range(4)]
    assert falls[1] > 0.75 and max(falls[0], *falls[2:]) < 0.05


def test_the_kept_models_are_small():
    for way in KEPT_WAYS:
        folder = HERE / "models" / f"{way}-{KEPT_SEED}"
        assert sum(path.stat().st_size for path in folder.iterdir()) < 110_000


def test_the_figure_is_drawn_from_the_kept_numbers(kept, tmp_path):
    pytest.importorskip("matplotlib")
    from studies.independent_heads.figure import draw

    draw(kept, tmp_path / "figure.png")
    assert 20_000 < (tmp_path / "figure.png").stat().st_size < 300_000
