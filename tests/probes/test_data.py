"""Documents, and the rows of tokens that are cut from them."""

import hashlib
import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.data import KEPT_PROMPTS, ProbeData, common_length, read_data
from workbench.errors import ConfigError, UnsupportedError
from workbench.training.mlp import MLP, MLPConfig


def test_a_row_comes_from_one_document_and_no_text_is_in_two_rows(build):
    """Every document is one letter, repeated: a row across two would have two."""
    model = build()
    documents = tuple(letter * 45 for letter in "abcdef")
    data = ProbeData(documents, "letters")
    rows = data.tokens(model, 100, 8, seed=3)
    assert (rows[:, 0] == 0).all()
    assert all(len(set(row[1:].tolist())) == 1 for row in rows)
    # 45 letters give six rows of seven and a rest.
    assert len(rows) == 6 * 6
    whose = data.documents_of_tokens(model, 100, 8, seed=3)
    assert [documents[at][0] for at in whose] == [
        model.tokenizer.str_tokens([row[1]])[0] for row in rows.tolist()
    ]


def test_rows_are_drawn_by_the_seed_alone(build, letter_data):
    first, again, other = (letter_data.tokens(build(), 6, 10, seed) for seed in (0, 0, 1))
    assert (first == again).all() and not (first == other).all()
    assert first.shape == (6, 10)


def test_documents_are_taken_in_turn(build):
    data = ProbeData(tuple(letter * 200 for letter in "abcd"), "letters")
    assert sorted(data.documents_of_tokens(build(), 4, 8, seed=0)) == [0, 1, 2, 3]


def test_prompts_are_read_from_their_start(build):
    data = ProbeData(("abcdefgh", "ab", "ponmlkji"), "prompts", is_prompts=True)
    rows = data.tokens(build(), 9, 5, seed=0)
    texts = {"".join(build().tokenizer.str_tokens(row[1:])) for row in rows.tolist()}
    assert texts == {"abcd", "ponm"}
    assert data.prompts == data.documents and ProbeData(("a",), "x").prompts == ()


def test_prompts_of_differing_lengths_are_read_at_one_and_the_others_are_told(build):
    notes, texts = [], ("abcdefgh", "ponmlkjihg", "ab", "abcabc", "bcd1bcdbcd")
    data = ProbeData(texts, "list", is_prompts=True, told=notes.append)
    rows = data.tokens(build(), 9, 32, seed=0)
    read = {"".join(build().tokenizer.str_tokens(row[1:])) for row in rows.tolist()}
    # One token more than letters; "ab" has too few, and of the other three all are needed.
    assert read == {"abcdef", "ponmlk", "abcabc"}
    assert notes == [
        "list: 3 of 5 prompts read at 7 tokens; 1 left out as shorter; 1 left out as unreadable: "
        "letters has no token for '1' at character 3"
    ]
    assert data == ProbeData(texts, "list", is_prompts=True) and data.split(0).train.told
    # Fewer are asked for than there are: the length is that of all.
    assert data.tokens(build(), 1, 32, seed=1).shape == (1, 7) and "1 of 5 prompts" in notes[-1]


def test_prompts_of_which_none_can_be_read_are_refused_with_their_lengths(build):
    short = ProbeData(("ab", "a"), "list", is_prompts=True)
    with pytest.raises(UnsupportedError, match="no prompt has 4 tokens; the longest has 3"):
        short.tokens(build(), 9, 32, seed=0)
    assert short.tokens(build(), 9, 3, seed=0).shape == (1, 3)
    with pytest.raises(UnsupportedError, match="no prompt has 8 tokens"):
        short.documents_of_tokens(build(), 9, 32, 0, at_least=8)
    with pytest.raises(UnsupportedError, match="no token for '1'"):
        ProbeData(("1111111",), "list", is_prompts=True).tokens(build(), 9, 32, seed=0)


@given(st.lists(st.integers(1, 60), min_size=1), st.integers(1, 9))
def test_the_common_length_reads_most_and_leaves_at_most_a_quarter_out(lengths, at_least):
    """Against every length that there is."""
    usable = [length for length in lengths if length >= at_least]
    if not usable:
        return
    n_read = {one: sum(length >= one for length in usable) for one in usable}
    allowed = [one for one, count in n_read.items() if count >= KEPT_PROMPTS * len(usable)]
    found = common_length(lengths, at_least)
    assert found in allowed
    assert found * n_read[found] == max(one * n_read[one] for one in allowed)


def test_what_a_model_cannot_read_is_refused_by_name(build, letter_data):
    with pytest.raises(UnsupportedError, match=r"letters cannot read numbers: .* no token for '1'"):
        ProbeData(("1234567890" * 9,), "numbers").tokens(build(), 1, 8, 0)
    with pytest.raises(UnsupportedError, match="no document of short has 30 tokens"):
        ProbeData(("abc",), "short").tokens(build(), 1, 30, 0)
    with pytest.raises(UnsupportedError, match="reads 2 to 32 tokens; 99 were asked for"):
        letter_data.tokens(build(), 1, 99, 0)
    bare = build()
    bare.tokenizer = None
    with pytest.raises(UnsupportedError, match="no tokenizer"):
        letter_data.tokens(bare, 1, 8, 0)


@settings(deadline=None)
@given(count=st.integers(2, 40), seed=st.integers(0, 99), share=st.floats(0.01, 0.99))
def test_a_split_shares_no_document_and_loses_none(count, seed, share):
    data = ProbeData(tuple(f"document {index}" for index in range(count)), "texts")
    train, held_out = data.split(seed, share)
    assert not set(train.documents) & set(held_out.documents)
    assert set(train.documents) | set(held_out.documents) == set(data.documents)
    assert data.split(seed, share) == (train, held_out)


def test_one_document_cannot_be_split():
    with pytest.raises(UnsupportedError, match="one document"):
        ProbeData(("all there is",), "one").split(0)


def test_the_hash_tells_documents_apart_and_nothing_else():
    one, same = ProbeData(("ab", "c"), "x"), ProbeData(("ab", "c"), "y")
    assert one.hash == same.hash != ProbeData(("a", "bc"), "x").hash
    # Prompts are cut otherwise, so their results are others; texts keep the hash that they had.
    prompts = ProbeData(("ab", "c"), "x", is_prompts=True)
    assert prompts.hash == ProbeData(("ab", "c"), "y", is_prompts=True).hash != one.hash
    framed = b"".join(len(text).to_bytes(8, "little") + text for text in (b"ab", b"c"))
    assert one.hash == hashlib.blake2b(framed, digest_size=8).hexdigest()


def test_every_kind_of_file_gives_the_same_documents(tmp_path):
    texts = ["first text", "zweiter Text: ä", "third"]
    folder = tmp_path / "folder"
    folder.mkdir()
    for index, text in enumerate(texts):
        (folder / f"{index}.txt").write_text(text, encoding="utf-8")
    lines = [
        json.dumps({"text": texts[0]}),
        json.dumps(texts[1]),
        "",
        json.dumps({"text": texts[2]}),
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pd.DataFrame({"text": texts}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n\n", encoding="utf-8")
    found = [
        read_data(str(tmp_path / name)) for name in ("folder", "a.jsonl", "a.parquet", "a.txt")
    ]
    assert all(data.documents == tuple(texts) for data in found)
    assert [data.is_prompts for data in found] == [False, False, False, True]


BROKEN = {
    "empty.txt": (b"", "no text"),
    "blank.txt": (b" \n\n \n", "no text"),
    "latin.txt": ("ä".encode("latin-1"), "not UTF-8"),
    "null.txt": (b"a\0b", "null character"),
    "a.jsonl": (b'{"text": "a"}\n{"text": ', "line 2 is not JSON"),
    "b.jsonl": (b'{"body": "a"}', "line 1 holds no text"),
    "c.jsonl": (b"[" * 100_000, "line 1 is not JSON"),
    "d.jsonl": (b'{"text": "\\ud800"}', "not valid Unicode"),
    "a.parquet": (b"PAR1 and no more", "not a whole Parquet file"),
    "a.docx": (b"PK", "is no data"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_name(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_data(str(tmp_path / name))


def test_a_parquet_file_without_text_is_refused(tmp_path):
    pd.DataFrame({"body": ["a"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="no column 'text': it has body"):
        read_data(str(tmp_path / "a.parquet"))
    pd.DataFrame({"text": [1]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match="row 0: text is int"):
        read_data(str(tmp_path / "b.parquet"))


@pytest.mark.parametrize("spec", ["nowhere", "", " ", "a\0b", "x" * 5000])
def test_data_that_is_not_there_is_refused(spec):
    with pytest.raises(ConfigError, match="no data"):
        read_data(spec)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no text files"):
        read_data(str(tmp_path))


def test_the_standard_library_is_what_no_bundled_model_was_trained_on(attn_2l):
    data = read_data("stdlib")
    assert len(data.documents) > 20
    assert data.tokens(attn_2l, 5, 33, seed=0).shape == (5, 33)
    assert data.hash == read_data("stdlib").hash


def test_a_perceptron_reads_no_text(letter_data):
    with pytest.raises(UnsupportedError, match="mlp reads no text"):
        letter_data.tokens(MLP(MLPConfig(widths=(2, 2))), 1, 8, 0)
