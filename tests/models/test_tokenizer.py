"""Text to tokens and back: nothing is added, dropped or misread in silence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from workbench.errors import CheckpointError, PromptError
from workbench.models.tokenizer import MAX_PROMPT_CHARS, Tokenizer
from workbench.models.tokens import checked_tokens


@pytest.fixture(scope="module")
def bytes_tokenizer():
    """Byte-level, as GPT-2's: any text can be spelled."""
    alphabet = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Backend(
        models.BPE(vocab={**alphabet, "th": 256, "the": 257}, merges=[("t", "h"), ("th", "e")])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, "bytes")


@pytest.fixture(scope="module")
def words_tokenizer():
    """WordPiece, as BERT's: special tokens around, `##` inside a word, unknown characters."""
    vocab = {t: i for i, t in enumerate(["[UNK]", "[CLS]", "[SEP]", "dog", "##s", "sat", "."])}
    backend = Backend(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    return Tokenizer(backend, "words")


@given(
    text=st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30
    )
)
def test_byte_level_tokens_spell_the_text_again(bytes_tokenizer, text):
    ids = bytes_tokenizer.encode(text)
    assert bytes_tokenizer.backend.decode(ids) == text
    shown = bytes_tokenizer.str_tokens(ids)
    assert len(shown) == len(ids)
    assert all(shown)
    if text.isascii():
        assert "".join(shown) == text


def test_parts_of_a_character_are_shown_as_their_bytes(bytes_tokenizer):
    assert bytes_tokenizer.str_tokens(bytes_tokenizer.encode("é the")) == [
        "<C3>",
        "<A9>",
        " ",
        "the",
    ]


def test_special_tokens_are_those_of_the_file_and_padding_is_not_kept(words_tokenizer):
    ids = words_tokenizer.encode("Dogs sat.")
    assert words_tokenizer.str_tokens(ids) == ["[CLS]", "dog", "##s", "sat", ".", "[SEP]"]
    assert words_tokenizer.encode("Dogs", add_special_tokens=False) == [3, 4]
    assert words_tokenizer.special_around() == ([1], [2])
    assert words_tokenizer.plain_ids() == [3, 4, 5, 6]


def test_what_cannot_be_spelled_is_named(words_tokenizer):
    with pytest.raises(PromptError, match="words has no token for 'cat' at character 4"):
        words_tokenizer.encode("dog cat")
    with pytest.raises(PromptError, match="no token for anything in '   '"):
        words_tokenizer.encode("   ")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "empty"),
        ("a\0b", "null character at position 1"),
        ("a\ud800", "not valid Unicode at character 1"),
        ("a" * (MAX_PROMPT_CHARS + 1), "the limit is 200,000"),
    ],
    ids=["empty", "null", "surrogate", "long"],
)
def test_what_is_no_prompt_is_refused(bytes_tokenizer, text, match):
    with pytest.raises(PromptError, match=match):
        bytes_tokenizer.encode(text)


@pytest.mark.parametrize("token", [-1, 258, 1 << 40])
def test_ids_outside_the_vocabulary_are_refused(bytes_tokenizer, token):
    with pytest.raises(PromptError, match="bytes has 258"):
        bytes_tokenizer.str_tokens([token])


def test_files_that_are_no_tokenizer_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json in"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_a_file_comes_back_as_the_tokenizer_it_was(tmp_path, words_tokenizer):
    words_tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert again.encode("dogs sat") == words_tokenizer.encode("dogs sat")
    assert again.d_vocab == words_tokenizer.d_vocab == 7


@pytest.mark.parametrize(
    ("tokens", "match"),
    [
        ([], "not empty"),
        ([[]], "not empty"),
        ([[1, 2], [3]], "rows of one length"),
        (torch.tensor([1.5]), "whole numbers"),
        ([True, False], "whole numbers"),
        (torch.ones(1, 1, 1), r"must be \[batch pos\]"),
        ([1, 20], "no token 20: this model's ids run from 0 to 19"),
        ([-1], "no token -1"),
        (list(range(11)), "11 tokens; this model reads at most 10"),
    ],
    ids=str,
)
def test_token_ids_that_do_not_fit_are_refused(tokens, match):
    with pytest.raises(PromptError, match=match):
        checked_tokens(tokens, d_vocab=20, n_ctx=10)


def test_one_row_of_ids_becomes_a_batch_of_one():
    assert checked_tokens([1, 2], d_vocab=20, n_ctx=10).tolist() == [[1, 2]]
