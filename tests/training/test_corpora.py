"""Corpora: a split that cannot leak, a tokenizer that loses nothing, a cache that is never half there."""

import numpy as np
import pytest

from workbench.errors import CheckpointError, ConfigError
from workbench.training.corpora import (
    BOS,
    Corpus,
    encoded,
    encoded_corpus,
    read_text,
    standard_library,
    trained_bpe,
)


@pytest.fixture(scope="module")
def library() -> Corpus:
    return standard_library()


@pytest.fixture(scope="module")
def small(library) -> Corpus:
    """The files of one package: enough for a tokenizer, read in a moment."""
    files = tuple(
        path for path in library.files if path.parent.name in ("json", "email", "asyncio")
    )
    return Corpus(library.root, files)


def test_the_split_is_disjoint_complete_and_about_one_in_twenty(library):
    assert not set(library.train) & set(library.held_out)
    assert set(library.train) | set(library.held_out) == set(library.files)
    assert 0.02 < len(library.held_out) / len(library.files) < 0.1


def test_the_split_does_not_depend_on_where_python_is_installed(library, tmp_path):
    path = library.held_out[0]
    moved = tmp_path / path.relative_to(library.root)
    assert Corpus(tmp_path, (moved,)).is_held_out(moved)


def test_foreign_packages_and_encodings_are_left_out(library):
    names = {part for path in library.files for part in path.relative_to(library.root).parts}
    assert not names & {"site-packages", "encodings"}


def test_a_folder_without_enough_source_is_refused(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="too few to train on"):
        standard_library(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        standard_library(tmp_path / "absent")


@pytest.fixture(scope="module")
def tokenizer(small):
    return trained_bpe([read_text(small.files)], 400)


def test_every_text_survives_the_tokenizer(tokenizer):
    for text in ("def f(x):\n\treturn x  # naïve ∑ 🙂\n", "  \n\n", "\u202e\x01"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.backend.decode(ids) == text


def test_a_prompt_starts_with_bos_and_only_with_one(tokenizer):
    ids = tokenizer.encode("import os")
    assert tokenizer.str_tokens(ids)[0] == BOS
    assert ids.count(0) == 1
    assert ids[0] == 0
    assert tokenizer.d_vocab == 400


def test_encoding_in_pieces_loses_nothing(tokenizer, small):
    text = read_text(small.files)
    ids = encoded(tokenizer, text)
    assert ids.dtype == np.uint16
    assert tokenizer.backend.decode(ids.tolist()) == text


def test_training_the_tokenizer_twice_gives_the_same(tokenizer, small):
    again = trained_bpe([read_text(small.files)], 400)
    assert again.backend.to_str() == tokenizer.backend.to_str()


@pytest.mark.parametrize("d_vocab", [256, 100_000])
def test_a_vocabulary_that_cannot_be_is_refused(d_vocab):
    with pytest.raises(ConfigError, match="d_vocab"):
        trained_bpe(["a b c"], d_vocab)


def test_the_second_call_reads_the_cache(small, tmp_path):
    first = encoded_corpus(small, 300, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = encoded_corpus(small, 300, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert np.array_equal(first.train, second.train)
    assert np.array_equal(first.held_out, second.held_out)


def test_a_broken_cache_says_so(small, tmp_path):
    encoded_corpus(small, 300, tmp_path)
    next(tmp_path.rglob("train.npy")).write_bytes(b"\x93NUMPY")
    with pytest.raises(CheckpointError, match="delete it"):
        encoded_corpus(small, 300, tmp_path)
