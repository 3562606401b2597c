"""The study of induction heads: its numbers are those kept, its cuts and its trap are what they say."""

from dataclasses import replace

import pytest
import torch

from studies.findings import read_findings, read_numbers
from studies.induction_heads import numbers
from studies.induction_heads.composing import Cut
from studies.induction_heads.formation import formation_table, onsets
from studies.induction_heads.study import HERE, TEXT, Config, Findings, circuits, trap
from studies.induction_heads.trap import DRAW, PERIOD, folder_of, repeats, rows_of, train
from studies.induction_heads.two_sided import matching_through_both
from tests.studies.agreement import assert_same_numbers
from workbench import load
from workbench.errors import UnsupportedError
from workbench.heads.behaviours import head_scores, induction
from workbench.prompts import random_repeats
from workbench.sites import Head
from workbench.training.tasks import UNSCORED
from workbench.weights import effective_weights

PAIR = ["model", "through", "writer", "reader"]


@pytest.fixture(scope="module")
def kept() -> Findings:
    return read_findings(Findings, HERE / "results")


@pytest.fixture(scope="module")
def induction_2l():
    return load("induction-2l")


def test_the_readme_quotes_the_kept_numbers(kept):
    assert read_numbers(HERE / "README.md") == numbers.blocks(kept)


def test_every_claim_holds(kept):
    assert kept.holds and all(kept.holds.values()), kept.holds


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", [{"models": (TEXT,), "seeds": ()}, {"models": ("induction-2l",), "seeds": (1,)}]
)
def test_a_fresh_run_finds_the_kept_circuits(kept, part):
    found = circuits(replace(Config(), **part))
    assert_same_numbers(found["heads"], kept.heads, ["model", "layer", "head", "prompts"])
    # A matching statistic is a ratio near 0 over 0 where nothing is composed: it wobbles in float32.
    assert_same_numbers(found["pairs"], kept.pairs, PAIR, atol=3e-3)
    keys = ["model", "reader", "query_through", "key_through"]
    assert_same_numbers(found["two_sided"], kept.two_sided, keys, atol=3e-3)
    assert_same_numbers(found["inputs"], kept.inputs, ["model", "through"], atol=3e-3)


@pytest.mark.slow
def test_a_fresh_run_finds_the_kept_formation(kept):
    config = Config()
    table = formation_table(TEXT, (800,), config.n_rows, config.n_prompts, config.seed)
    assert_same_numbers(table, kept.formation, ["step"])
    assert_same_numbers(onsets(kept.formation), kept.onsets, ["measure"])


def test_a_fresh_run_finds_the_kept_periods(kept):
    table = trap(replace(Config(), seeds=(0,), periods=(8, 16, 17)))["periods"]
    assert_same_numbers(table, kept.periods, ["model", "period"])


@pytest.mark.parametrize("through", ["Q", "K"])
def test_a_cut_is_the_pattern_without_what_the_writer_writes(induction_2l, through):
    """Against scores spelled out in float64 from the raw weights, the writer's output left out of one input."""
    model = induction_2l
    rows = random_repeats(model, 3, 24, 0)
    writer, reader = Head(0, 1), Head(1, 2)
    (found,) = Cut(model, effective_weights(model), rows).patterns(reader, [(writer, through)])[
        None, :, reader.head
    ]
    first, second = (block.attn for block in model.blocks)
    W_E, W_pos = model.W_E.double(), model.W_pos.double()[:24]
    stream = W_E[rows]
    entering = {"Q": stream, "K": stream}
    for head in range(4):
        W_Q, W_K, W_V, W_O = (getattr(first, f"W_{x}")[head].double() for x in "QKVO")
        scores = ((stream + W_pos) @ W_Q) @ ((stream + W_pos) @ W_K).mT / W_Q.shape[1] ** 0.5
        pattern = scores.masked_fill(torch.ones(24, 24).triu(1).bool(), -torch.inf).softmax(-1)
        written = pattern @ stream @ W_V @ W_O
        for side in "QK":
            is_cut = side == through and head == writer.head
            mean = written.mean((0, 1)) if is_cut else 0
            entering[side] = entering[side] + (mean if is_cut else written)
    W_Q, W_K = (getattr(second, f"W_{x}")[reader.head].double() for x in "QK")
    scores = ((entering["Q"] + W_pos) @ W_Q) @ ((entering["K"] + W_pos) @ W_K).mT
    scores = scores / W_Q.shape[1] ** 0.5
    slow = scores.masked_fill(torch.ones(24, 24).triu(1).bool(), -torch.inf).softmax(-1)
    torch.testing.assert_close(found.double(), slow, rtol=1e-4, atol=1e-5)


def test_an_uncut_score_is_the_library_s(induction_2l):
    rows = random_repeats(induction_2l, 4, 32, 1)
    cut = Cut(induction_2l, effective_weights(induction_2l), rows)
    library = head_scores(induction_2l, prompts=rows)
    for head in range(4):
        mean = cut.scores(Head(1, head)).mean()
        assert mean == pytest.approx(library.value(Head(1, head), "induction"), abs=1e-5)


def test_cutting_values_changes_no_pattern(kept):
    assert (kept.pairs.query("through == 'V'")["drop"].abs() < 1e-12).all()


def test_a_model_with_norms_is_not_cut(model):
    with pytest.raises(UnsupportedError, match="without norms"):
        Cut(model, effective_weights(model), torch.zeros(1, 4, dtype=torch.long))


def test_matching_through_both_equals_the_eigenvalues_of_the_whole_term(induction_2l):
    weights = effective_weights(induction_2l, dtype="float64")
    query, key, reader = (weights.head(head) for head in (Head(0, 1), Head(0, 0), Head(1, 0)))
    through = [weights.W_E @ head.W_V @ head.W_O for head in (query, key)]
    dense = (through[0] @ reader.W_Q) @ (through[1] @ reader.W_K).T
    values = torch.linalg.eigvals(dense - dense.mean(1, keepdim=True))
    found = matching_through_both(weights, Head(1, 0), Head(0, 1), Head(0, 0))
    assert found == pytest.approx(float(values.real.sum() / values.abs().sum()), abs=1e-6)


def test_rows_of_one_period_repeat_after_it():
    """What is to be predicted stands one less than a period back, behind the last copy of the query."""
    targets = repeats(PERIOD, 3).batch(0, DRAW).targets
    rows = rows_of(PERIOD, 3, 0)
    row, query = torch.nonzero(targets != UNSCORED, as_tuple=True)
    assert len(row) > 3 * PERIOD
    assert torch.equal(targets[row, query], rows[row, query - PERIOD + 1])
    behind = induction(rows)[row, query, query - PERIOD + 1]
    # The first of the repetition has no copy of its own before it, only one of what it follows.
    assert behind.float().mean() > 0.9


@pytest.mark.slow
def test_one_fixed_period_is_learnt_without_composition(tmp_path):
    """The trap closes anew from its recipe, sooner than the kept models were stopped."""
    train(5, tmp_path / "model", steps=120)
    model = load(str(tmp_path / "model"))
    scores = head_scores(model, prompts=rows_of(PERIOD, 8, 0))
    assert repeats(PERIOD, 8).measure(model)["accuracy"] > 0.95
    assert scores.value(scores.best("induction", layer=0), "induction") > 0.4
    assert head_scores(model).table().query("behaviour == 'induction'")["value"].max() < 0.15


def test_the_kept_models_are_small():
    for seed in Config().seeds:
        assert sum(path.stat().st_size for path in folder_of(seed).iterdir()) < 100_000


def test_the_figure_is_drawn_from_the_kept_numbers(kept, tmp_path):
    pytest.importorskip("matplotlib")
    from studies.induction_heads.figure import draw

    draw(kept, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 20_000
