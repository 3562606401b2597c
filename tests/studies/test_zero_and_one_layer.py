"""The study of bigrams, copying and skip-trigrams: its numbers are those kept, its parts are right."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from studies.findings import read_findings, read_numbers
from studies.zero_and_one_layer import bigrams, numbers
from studies.zero_and_one_layer.counts import COUNTS, Counts, pair_counts, read_counts
from studies.zero_and_one_layer.heads import copying_table, is_repeated, losses, text_rows
from studies.zero_and_one_layer.study import HERE, Config, Findings, bigram_findings
from studies.zero_and_one_layer.trigrams import confirmed_and_bugs, is_confirmed, listed_trigrams
from tests.studies.agreement import assert_same_numbers
from workbench import load
from workbench.results import read_table
from workbench.sites import Head, Site
from workbench.training.corpora import encoded, encoded_corpus, standard_library
from workbench.training.held_out import held_out_text
from workbench.weights import effective_weights


@pytest.fixture(scope="module")
def kept() -> Findings:
    return read_findings(Findings, HERE / "results")


@pytest.fixture(scope="module")
def attn_1l():
    return load("attn-1l")


def test_the_readme_quotes_the_kept_numbers(kept):
    assert read_numbers(HERE / "README.md") == numbers.blocks(kept)


def test_every_claim_holds(kept):
    assert kept.holds and all(kept.holds.values()), kept.holds


@pytest.mark.slow
def test_a_fresh_run_finds_the_kept_bigrams(kept):
    for name, table in bigram_findings(Config()).items():
        keys = ["count"] if name == "by_count" else ["name"]
        assert_same_numbers(table, getattr(kept, name), keys)


def test_a_fresh_run_finds_the_kept_copying_heads(kept, attn_1l):
    config = Config()
    table = copying_table(attn_1l, config.n_rows, config.n_null, config.seed)
    assert_same_numbers(table, kept.copying, ["layer", "head"])


@pytest.mark.slow
def test_a_fresh_run_finds_the_kept_skip_trigrams_of_a_head(kept, attn_1l):
    config, heads = Config(), (Head(0, 3),)
    keys = ["head", "source_id", "destination_id", "out_id"]
    table = listed_trigrams(attn_1l, heads, config.k, config.n_measured, config.seed)
    assert_same_numbers(table, kept.trigrams, keys)
    assert len(table) == config.k
    table = confirmed_and_bugs(attn_1l, heads, config.k_deep, config.n_measured, config.seed)
    assert_same_numbers(table, kept.bugs, keys)


def test_a_bug_is_made_of_two_that_text_confirms(kept):
    confirmed = kept.bugs[kept.bugs["kind"] == "confirmed"]
    assert is_confirmed(confirmed).all()
    triples = set(
        zip(
            *(confirmed[name] for name in ("head", "source", "destination", "out")),
            strict=True,
        )
    )
    for bug in kept.bugs[kept.bugs["kind"] == "bug"].itertuples():
        first = (bug.head, *bug.destination_from.split(" … "))
        second = (bug.head, *bug.out_from.split(" … "))
        assert {first, second} <= triples
        assert first[1] == second[1] == bug.source
        assert (first[2], second[3]) == (bug.destination, bug.out)


def test_the_kept_counts_are_those_of_this_library_where_it_is_the_same():
    corpus = standard_library()
    if corpus.fingerprint() != read_table(COUNTS)[1]["corpus"]:
        pytest.skip("another release of Python, another standard library")
    text = np.asarray(encoded_corpus(corpus, 1024).train)
    np.testing.assert_array_equal(read_counts().corpus, pair_counts(text[:-1], text[1:], 1024))


def test_pairs_are_counted():
    text = np.random.default_rng(0).integers(0, 5, 300)
    slow = Counter(zip(text[:-1].tolist(), text[1:].tolist(), strict=True))
    found = pair_counts(text[:-1], text[1:], 5)
    assert {pair: found[pair] for pair in np.ndindex(5, 5)} == {
        pair: slow[pair] for pair in np.ndindex(5, 5)
    }


def zipf_counts(seed=0, d_vocab=30, n=4000):
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, d_vocab + 1)
    text = rng.choice(d_vocab, n, p=shares / shares.sum())
    return pair_counts(text[:-1], text[1:], d_vocab)


def test_kneser_ney_is_a_distribution_and_equals_its_definition():
    counts = zipf_counts()
    counts[7] = 0
    found = bigrams.kneser_ney(counts)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
    times = Counter(counts.ravel().astype(int).tolist())
    y = times[1] / (times[1] + 2 * times[2])
    discount = defaultdict(lambda: 3 - 4 * y * times[4] / times[3])
    discount |= {0: 0, 1: 1 - 2 * y * times[2] / times[1], 2: 2 - 3 * y * times[3] / times[2]}
    before = [(counts[:, token] > 0).sum() + 0.5 for token in range(30)]
    for token, following in ((0, 0), (0, 29), (12, 3), (7, 5)):
        total = counts[token].sum()
        lower = before[following] / sum(before)
        if total == 0:
            slow = lower
        else:
            freed = sum(discount[int(count)] for count in counts[token])
            count = counts[token, following]
            slow = (count - discount[int(count)] + freed * lower) / total
        assert found[token, following] == pytest.approx(slow)


def test_a_table_loses_what_the_model_loses():
    """attn-0l reads one token: its loss on a text is that of its table, without a forward pass."""
    model = load("attn-0l")
    text = encoded(model.tokenizer, held_out_text())[:2000]
    counts = Counts(*[zipf_counts(d_vocab=1024)] * 2)
    tables = bigrams.distributions(effective_weights(model), counts, n_steps=1)
    rows = torch.from_numpy(text.astype(np.int64)).reshape(-1, 250)
    slow = float(losses(model, rows, []).mean())
    pairs = np.concatenate([tables[bigrams.MODEL][row[:-1], row[1:]] for row in rows.numpy()])
    assert -pairs.mean() == pytest.approx(slow, abs=1e-5)
    for table in tables.values():
        np.testing.assert_allclose(np.exp(table).sum(1), 1, rtol=1e-5)


def test_training_on_with_counts_lowers_their_loss():
    weights = effective_weights(load("attn-0l"))
    counts = read_counts().corpus
    before, after = (
        -(counts * bigrams.trained_on(weights, counts, n)).sum() / counts.sum() for n in (0, 5)
    )
    assert after < before


def test_a_weighted_correlation_is_that_of_repeated_pairs():
    rng = np.random.default_rng(0)
    weight, one, other = rng.integers(0, 4, (6, 5)), *rng.normal(size=(2, 6, 5))
    repeated = [np.repeat(values.ravel(), weight.ravel()) for values in (one, other)]
    found = bigrams.correlation(weight.astype(float), one, other, seed=0)
    assert found.value == pytest.approx(np.corrcoef(*repeated)[0, 1])
    assert found.low < found.value < found.high


def test_a_repeated_token_stands_earlier_in_its_row():
    rows = torch.randint(0, 6, (3, 9), generator=torch.Generator().manual_seed(0))
    slow = [[row[pos] in row[:pos] for pos in range(1, 9)] for row in rows.tolist()]
    assert is_repeated(rows).tolist() == slow


def test_removing_nothing_costs_nothing(attn_1l):
    rows = text_rows(attn_1l, 4)
    site = attn_1l.site_hook
    same = losses(attn_1l, rows, [(site(Site("z", 0)), lambda z, hook: z.clone())])
    assert torch.equal(same, losses(attn_1l, rows, []))


def test_the_figure_is_drawn_from_the_kept_numbers(kept, tmp_path):
    pytest.importorskip("matplotlib")
    from studies.zero_and_one_layer.figure import draw

    draw(kept, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 20_000
    assert Path(HERE / "figure.png").stat().st_size < 400_000
