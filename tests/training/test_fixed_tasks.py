"""Formulas, moons, groups and regression in context: the answers are right, the held-out part is held out."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from workbench.errors import ConfigError, PromptError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.loop import fit
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.tasks import (
    FORMULAS,
    Examples,
    FixedTask,
    InContextRegression,
    Numbers,
    Sequences,
    Task,
    formula_task,
    modular_addition,
    permutations,
    read_numbers,
    two_moons,
)

MAKERS = {
    "independence": lambda seed: formula_task("independence", seed=seed),
    "feature-sharing": lambda seed: formula_task("feature-sharing", seed=seed),
    "compositionality": lambda seed: formula_task("compositionality", seed=seed),
    "two moons": lambda seed: two_moons(seed=seed),
    "addition": lambda seed: modular_addition(p=11, seed=seed),
    "permutations": lambda seed: permutations(n=3, seed=seed),
}
WIDTHS = {
    "independence": MLPConfig(widths=(4, 5, 2)),
    "feature-sharing": MLPConfig(widths=(3, 5, 3)),
    "compositionality": MLPConfig(widths=(4, 5, 1)),
    "two moons": MLPConfig(widths=(2, 5, 2)),
    "addition": MLPConfig(widths=(8, 5, 11), embedding=11, in_fold=2),
    "permutations": MLPConfig(widths=(8, 5, 6), embedding=6, in_fold=2),
}


def answers(examples):
    return examples.targets if isinstance(examples, Numbers) else examples.labels


@pytest.mark.parametrize("name", MAKERS)
def test_a_task_is_drawn_by_its_seed(name):
    first, again, other = MAKERS[name](0), MAKERS[name](0), MAKERS[name](1)
    for part in ("train", "test"):
        mine, same = getattr(first, part), getattr(again, part)
        assert torch.equal(mine.inputs, same.inputs) and torch.equal(answers(mine), answers(same))
        assert not torch.equal(mine.inputs, getattr(other, part).inputs)
    assert isinstance(first, Task) and isinstance(first.train, Examples)


@pytest.mark.parametrize("name", MAKERS)
def test_no_test_example_is_trained_on(name):
    task = MAKERS[name](0)
    train, test = ({tuple(row) for row in p.inputs.tolist()} for p in (task.train, task.test))
    assert len(train) == len(task.train.inputs)
    assert not train & test


@pytest.mark.parametrize("name", MAKERS)
def test_measures_are_the_losses_of_a_model(name):
    task, model = MAKERS[name](0), MLP(WIDTHS[name])
    measured = task.measure(model)
    with torch.no_grad():
        for part in ("train", "test"):
            examples = getattr(task, part)
            outputs = model(examples.inputs)
            rows = outputs.double()
            if isinstance(examples, Numbers):
                each = (rows - examples.targets).square().mean(1)
            else:
                each = -rows.log_softmax(1)[torch.arange(len(rows)), examples.labels]
            assert measured[f"{part}_loss"] == pytest.approx(float(each.mean()), rel=1e-4)


@pytest.mark.parametrize("n_rows", [1, 7, None])
def test_a_batch_depends_on_seed_and_step_alone(n_rows):
    whole = formula_task("independence")
    task = FixedTask("some", whole.train, whole.test, n_rows)
    assert torch.equal(task.batch(3, 7).inputs, task.batch(3, 7).inputs)
    assert len({tuple(row) for row in task.batch(3, 7).inputs.tolist()}) == (n_rows or 100)
    if n_rows is not None:
        assert not torch.equal(task.batch(3, 7).inputs, task.batch(3, 8).inputs)
        assert not torch.equal(task.batch(3, 7).inputs, task.batch(4, 7).inputs)


def test_the_formulas_are_those_of_the_paper():
    rows = np.random.default_rng(0).uniform(-1, 1, (20, 4))
    for a, b, c, d in rows:
        here = np.array([[a, b, c, d]])
        expected = {
            "independence": [(a + c) ** 3, b**2 + math.sin(math.pi * d)],
            "feature-sharing": [a * a, a * a + b * b, a * a + b * b + c * c],
            "compositionality": [math.hypot(a - b, c - d)],
        }
        for name, values in expected.items():
            formula = FORMULAS[name]
            found = formula(here[:, : formula.n_inputs])
            np.testing.assert_allclose(found, [values], rtol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_have_the_inputs_and_outputs_that_they_say(name):
    task, formula = formula_task(name), FORMULAS[name]
    assert task.train.inputs.shape == (100, formula.n_inputs)
    assert task.train.targets.shape == (100, formula.n_outputs)
    assert task.train.inputs.abs().max() <= 1
    if formula.sides:
        assert [len(side) for side in formula.sides] == [formula.n_inputs, formula.n_outputs]


def test_the_sides_of_independence_do_not_meet():
    """Changing an input of one side changes no output of the other."""
    formula, x = FORMULAS["independence"], np.random.default_rng(0).uniform(-1, 1, (1, 4))
    for entry, side in enumerate(formula.sides[0]):
        moved = x.copy()
        moved[0, entry] += 0.1
        changed = (formula(moved) != formula(x))[0]
        assert changed.tolist() == [side == other for other in formula.sides[1]]


def test_moons_are_half_circles_that_a_line_does_not_part():
    task = two_moons(noise=0.0)
    upper = task.train.inputs[task.train.labels == 0].double()
    lower = task.train.inputs[task.train.labels == 1].double()
    assert len(upper) == len(lower) == 100
    assert_close(upper.norm(dim=1), torch.ones(100).double(), atol=1e-6, rtol=0)
    around = lower - torch.tensor([1.0, 0.5]).double()
    assert_close(around.norm(dim=1), torch.ones(100).double(), atol=1e-6, rtol=0)
    assert (upper[:, 1] >= -1e-6).all() and (lower[:, 1] <= 0.5 + 1e-6).all()
    design = torch.cat([task.train.inputs, torch.ones(200, 1)], dim=1)
    line = torch.linalg.lstsq(design, task.train.labels[:, None] * 2.0 - 1).solution
    assert ((design @ line)[:, 0].sign() == task.train.labels * 2 - 1).float().mean() < 1


def test_noise_moves_points_by_as_much_as_it_says():
    free, noisy = two_moons(noise=0.0, n_train=20_000), two_moons(noise=0.3, n_train=20_000)
    # Points are shuffled alike, being drawn alike.
    moved = (noisy.train.inputs - free.train.inputs).std()
    assert float(moved) == pytest.approx(0.3, rel=0.02)


def test_addition_is_addition():
    task = modular_addition(p=13)
    for examples in (task.train, task.test):
        assert torch.equal(examples.labels, examples.inputs.sum(1) % 13)
    assert len(task.train.inputs) + len(task.test.inputs) == 169
    assert len(modular_addition().train.inputs) == round(0.8 * 3481)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_permutations_multiply_the_first_after_the_second(n):
    orders = list(itertools.permutations(range(n)))
    task = permutations(n=n)
    for examples in (task.train, task.test):
        pairs = zip(examples.inputs.tolist(), examples.labels.tolist(), strict=True)
        for (first, second), label in pairs:
            product = tuple(orders[first][orders[second][k]] for k in range(n))
            assert orders[label] == product
    assert len(task.train.inputs) + len(task.test.inputs) == len(orders) ** 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: formula_task("nonsense"), "no formula 'nonsense': there are independence"),
        (lambda: formula_task("independence", n_train=0), "training examples, not 0"),
        (lambda: two_moons(n_test=-1), "test examples, not -1"),
        (lambda: two_moons(noise=math.nan), "noise"),
        (lambda: modular_addition(p=1), "p must be"),
        (lambda: modular_addition(share=1.0), "share"),
        (lambda: permutations(n=9), "n must be"),
        (lambda: permutations(share=0.0), "share"),
        (lambda: FixedTask("t", two_moons().train, two_moons().test, 201), "1 to 200 rows"),
        (lambda: InContextRegression(n_points=1), "n_points"),
        (lambda: InContextRegression(n_sequences=1), "n_sequences"),
        (lambda: InContextRegression(share=1.0), "share"),
        (lambda: InContextRegression(n_rows=0), "rows"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# --- Regression in context ---------------------------------------------------------------------------

CONTEXT = InContextRegression(n_sequences=500, n_points=3)


def reader(task, **fields):
    shape = {"order": "sf", "d_model": 16, "n_heads": 1, "positions": "none", "unembed_bias": True}
    return Transformer(TransformerConfig(**shape | task.shape | fields))


def test_one_example_foretells_the_next_answer():
    batch = CONTEXT.batch(0, 0)
    x, y = batch.inputs[:, ::2, 1], batch.inputs[:, 1::2, 0]
    assert (batch.inputs[:, ::2, 0] == 0).all() and (batch.inputs[:, 1::2, 1] == 0).all()
    slope = y[:, 0] / x[:, 0]
    assert_close(batch.targets, slope[:, None] * x[:, 1:])
    assert (slope.abs() <= 1).all() and (x >= 1).all() and (x <= 3).all()


def test_sequences_in_context_are_drawn_by_seed_and_step_and_some_are_held_out():
    first = CONTEXT.batch(1, 2).inputs
    assert torch.equal(first, CONTEXT.batch(1, 2).inputs)
    assert not torch.equal(first, CONTEXT.batch(1, 3).inputs)
    held_out = {tuple(row) for row in CONTEXT.sequences.inputs[400:].flatten(1).tolist()}
    drawn = {
        tuple(row)
        for step in range(20)
        for row in CONTEXT.batch(0, step).inputs.flatten(1).tolist()
    }
    assert not drawn & held_out
    assert isinstance(CONTEXT, Task) and isinstance(CONTEXT.batch(0, 0), Sequences)


def test_a_channel_of_one_reads_like_its_token():
    model = reader(InContextRegression(d=4), n_ctx=5).eval()
    tokens = torch.randint(0, 5, (3, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        numbers = torch.nn.functional.one_hot(tokens, 5).double()
        assert_close(read_numbers(model, numbers), model(tokens))


def test_numbers_that_do_not_fit_are_refused():
    model = reader(CONTEXT)
    for shape in ((1, 3, 3), (1, 6, 2)):
        with pytest.raises(PromptError, match="reads 2 channels"):
            read_numbers(model, torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_transformer_learns_in_context(tmp_path, dtype):
    task = InContextRegression(n_sequences=2000)
    model = reader(task, order="sfsf", mlp_bias=True).to(dtype)
    config = TrainingConfig(steps=250, lr=1e-2, muon_lr=None, bf16=False)
    before = model.embed.W_E.detach().clone()
    fit(model, task, config, tmp_path)
    assert not torch.equal(before, model.embed.W_E)
    # Always answering the mean has R² 0.
    assert task.measure(model)["test_R2"] > 0.8
