"""Killing a batch at any moment loses at most what was in hand: two rounds of `tests.probes.crash`."""

import random

import pytest

from tests.probes import crash


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    root = tmp_path_factory.mktemp("crash")
    return root, crash.undisturbed(root)


@pytest.mark.parametrize(("seed", "blow"), [(7, "worker"), (1, "parent")])
def test_a_disturbed_batch_ends_like_an_undisturbed_one(calm, seed, blow, monkeypatch):
    """Each process needs seconds to load torch: one worker, one blow."""
    monkeypatch.setenv("CRASH_WORKERS", "1")
    root, expected = calm
    assert crash.one_round(root, expected, random.Random(seed), blows=1) == [blow]
    assert len(expected) == 2 * crash.N_MODELS
