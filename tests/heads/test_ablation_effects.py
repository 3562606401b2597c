"""Leaving heads out: batches that start at the head's layer agree with one whole pass for each head."""

import numpy as np
import pytest
import torch

from tests.test_weights import OWN, PUBLIC, public, randomised
from workbench.errors import UnsupportedError
from workbench.heads.ablation import head_effects
from workbench.sites import Site

ROWS = torch.tensor([[3, 7, 7, 2, 11, 3, 7, 0], [1, 5, 2, 2, 9, 4, 1, 5]])
ARCHITECTURES = [name for name in OWN if name != "no layers"]


def keeper(seen):
    def keep(z, hook):
        seen.append(z[0, 1:].clone())

    return keep


def one_by_one(model, rows):
    """Effect and divergence `[prompt head]` from a whole pass for each head."""
    layers = [layer for layer in range(model.cfg.n_layers) if model.n_heads_in(layer)]
    effects, divergences = [], []
    for row in rows:
        clean = model(row[None])[0].log_softmax(-1)
        lost, moved = [], []
        for layer in layers:
            name = model.site_hook(Site("z", layer))
            seen = []
            for other in rows:
                with model.hooks([(name, keeper(seen))]):
                    model(other[None])
            mean = torch.cat(seen).mean(0)
            for head in range(model.n_heads_in(layer)):

                def replace(z, hook, head=head, mean=mean):
                    z = z.clone()
                    z[0, 1:, head] = mean[head]
                    return z

                with model.hooks([(name, replace)]):
                    without = model(row[None])[0].log_softmax(-1)
                at = range(1, len(row) - 1)
                lost.append(
                    np.mean([float(clean[q, row[q + 1]] - without[q, row[q + 1]]) for q in at])
                )
                moved.append(
                    np.mean([float((clean[q].exp() * (clean[q] - without[q])).sum()) for q in at])
                )
        effects.append(lost)
        divergences.append(moved)
    return np.array(effects), np.array(divergences)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_batches_from_the_heads_layer_equal_a_pass_for_each_head(build, name):
    model = randomised(build, OWN[name]).double()
    found = head_effects(model, ROWS, n_draws=2)
    effect, kl = one_by_one(model, ROWS)
    np.testing.assert_allclose(found.effect, effect, atol=1e-10)
    np.testing.assert_allclose(found.kl, kl, atol=1e-10)


@pytest.mark.parametrize("name", PUBLIC)
@torch.no_grad()
def test_the_same_in_public_models(name):
    model = public(name)
    found = head_effects(model, ROWS, n_draws=2)
    effect, kl = one_by_one(model, ROWS)
    np.testing.assert_allclose(found.effect, effect, atol=2e-5)
    np.testing.assert_allclose(found.kl, kl, atol=2e-5)


def test_a_head_that_writes_the_same_everywhere_has_no_effect(build):
    model = randomised(build, OWN[ARCHITECTURES[0]]).double()
    with torch.no_grad():
        model.blocks[0].attn.W_V[1] = 0
    found = head_effects(model, ROWS, n_draws=3)
    assert np.abs(found.effect[:, 1]).max() < 1e-12
    assert np.abs(found.null[:, 1]).max() < 1e-12
    assert np.abs(found.effect[:, 0]).min() > 0


def test_the_null_reads_the_same_change_at_renamed_tokens(build):
    model = randomised(build, OWN[ARCHITECTURES[0]]).double()
    found = head_effects(model, ROWS, n_draws=400, seed=1)
    # A renamed token may be any: the null's mean is the mean loss over the vocabulary of what follows.
    again = head_effects(model, ROWS, n_draws=400, seed=2)
    assert np.abs(found.null.mean(0) - again.null.mean(0)).max() < 5 * found.null.std(0).max() / 20
    assert found.table()["n"].eq(2).all()


def test_models_without_heads_or_next_tokens_are_refused(build):
    with pytest.raises(UnsupportedError, match="has no attention"):
        head_effects(randomised(build, {"order": "f"}), ROWS)
    with pytest.raises(UnsupportedError, match="no next token"):
        head_effects(randomised(build, {"order": "s", "causal": False}), ROWS)
    with pytest.raises(UnsupportedError, match="three tokens"):
        head_effects(randomised(build, {"order": "s"}), ROWS[:, :2])
    with pytest.raises(UnsupportedError, match="drawn at least twice"):
        head_effects(randomised(build, {"order": "s"}), ROWS, n_draws=1)
