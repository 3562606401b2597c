"""Tasks: batches that depend on seed and step alone, and targets that are what they claim."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from workbench.errors import ConfigError, PromptError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.tasks import (
    UNSCORED,
    ModularAddition,
    Repeats,
    TextTask,
    mean_loss,
    position_losses,
    repeated_tokens,
)
from workbench.training.vocabularies import SYMBOLS, number_tokenizer, symbol_tokenizer

TEXT = np.arange(2000, dtype=np.uint16) % 50 + 1
TASKS = {
    "repeats": Repeats(d_vocab=30, n_ctx=24, n_rows=4, periods=(3, 8)),
    "text": TextTask(TEXT, TEXT[:500], d_vocab=51, n_ctx=24, n_rows=4, n_repeats=1),
    "addition": ModularAddition(p=13, n_rows=20),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_batch_depends_on_seed_and_step_alone(task):
    first, again = task.batch(3, 7), task.batch(3, 7)
    assert_close(first.tokens, again.tokens)
    assert_close(first.targets, again.targets)
    for other in (task.batch(3, 8), task.batch(4, 7)):
        assert not torch.equal(first.tokens, other.tokens)


@pytest.mark.parametrize("name", ["repeats", "text"])
def test_a_target_is_the_next_token(name):
    batch = TASKS[name].batch(0, 0)
    assert (batch.tokens[:, 0] == 0).all()
    following, target = batch.tokens[:, 1:], batch.targets[:, :-1]
    scored = target != UNSCORED
    assert scored.any()
    assert_close(following[scored], target[scored])


def test_every_scored_token_of_a_repetition_can_be_predicted_from_an_earlier_copy():
    rows, before = repeated_tokens(np.random.default_rng(0), 50, 64, (6, 24), range(1, 1000))
    for row, start in zip(rows, before, strict=True):
        periods = [
            t for t in range(6, 25) if t <= start and all(row[start:] == row[start - t : -t])
        ]
        assert len(periods) >= 1


def test_period_and_phase_of_repetitions_vary():
    _, before = repeated_tokens(np.random.default_rng(0), 500, 64, (6, 24), range(1, 1000))
    assert before.min() <= 8
    assert before.max() >= 30
    assert len(set(before.tolist())) > 20


def test_periods_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="periods"):
        Repeats(d_vocab=30, n_ctx=24, n_rows=4, periods=(3, 24))


def test_addition_splits_all_pairs_into_disjoint_parts():
    train, test = (set(map(tuple, part.tolist())) for part in ModularAddition(p=11).pairs)
    assert not train & test
    assert len(train | test) == 121
    assert len(train) == round(0.4 * 121)


def test_addition_asks_for_the_sum_at_the_equals_sign():
    batch = ModularAddition(p=11).as_batch(torch.tensor([[7, 9], [0, 0]]))
    assert batch.tokens.tolist() == [[7, 9, 11], [0, 0, 11]]
    assert batch.targets[:, 2].tolist() == [5, 0]
    assert (batch.targets[:, :2] == UNSCORED).all()


def test_mean_loss_leaves_unscored_positions_out():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    targets = torch.tensor([[1, UNSCORED, 2], [UNSCORED, UNSCORED, 4]])
    log_probs = logits.log_softmax(-1)
    expected = -(log_probs[0, 0, 1] + log_probs[0, 2, 2] + log_probs[1, 2, 4]) / 3
    assert_close(mean_loss(logits, targets), expected)


def test_position_losses_average_to_the_mean_loss():
    task = TASKS["repeats"]
    cfg = TransformerConfig(order="s", d_model=8, d_vocab=30, n_ctx=24)
    model, batch = Transformer(cfg), task.batch(0, 0)
    with torch.no_grad():
        expected = mean_loss(model(batch.tokens), batch.targets)
    assert_close(position_losses(model, batch).nanmean(), expected)


def test_a_text_shorter_than_a_row_is_refused():
    with pytest.raises(ConfigError, match="fewer than one row"):
        TextTask(TEXT, TEXT[:10], d_vocab=51, n_ctx=24, n_rows=4)


@pytest.mark.parametrize("prompt", ["abcabc", "a b c a b c", "abc abc"])
def test_symbols_can_be_typed_with_or_without_spaces(prompt):
    tokenizer = symbol_tokenizer()
    assert tokenizer.str_tokens(tokenizer.encode(prompt)) == ["<|bos|>", *"abcabc"]
    assert tokenizer.d_vocab == len(SYMBOLS) + 2


@pytest.mark.parametrize("prompt", ["12 34 =", "12 + 34 =", "12  34  ="])
def test_an_addition_can_be_typed(prompt):
    assert number_tokenizer(113).encode(prompt) == [12, 34, 113]


@pytest.mark.parametrize(
    ("tokenizer", "prompt"), [(symbol_tokenizer(), "a é"), (number_tokenizer(113), "12 113 =")]
)
def test_what_has_no_token_is_refused(tokenizer, prompt):
    with pytest.raises(PromptError, match="no token"):
        tokenizer.encode(prompt)
