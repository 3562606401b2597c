"""What streams tell: labels by rule of whole documents, controls, places that are read; planted or by hand."""

import numpy as np

from probes.configs import make_config
from probes.data import ProbeData, read_data
from probes.linear_probes import FEATURES, _groups
from probes.reading import Rows, controls, places, recalls
from probes.registry import get_probe
from probes.row_places import ends_in
from probes.token_features import DEEPEST, KINDS, OF_DOCUMENT, OF_PLACE, depths, kind_of, labels
from tests.conftest import letters
from tests.probes.asking import answer, of
from tests.probes.calibration import random_model
from tests.probes.conftest import letter_documents
from workbench import load

DATA = ProbeData(letter_documents(), "letters")


def asked(model):
    return answer("linear-probes", model, DATA, n_prompts=9, n_tokens=20, n_controls=9)


def test_tokens_are_told_apart_by_rule():
    tokens = ["def", " area", "(", "x", "1", "):", "\n", "    ", "return", " x", "2"]
    found = labels(tokens)
    assert [KINDS[kind] for kind in found["kind"][:4]] == ["keyword", "name", "bracket", "name"]
    assert found["next kind"].tolist() == [kind_of(token) for token in tokens[1:]]
    assert found["digit"].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert found["position"].tolist() == [0, 0, 1, 2, 3, 4, 4, 5, 6, 7]


def test_depths_are_those_after_each_character_and_lone_brackets_count_nothing():
    found = depths("f([\n    a],\n\t\tx) :) ({\n b")
    brackets = [0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    assert found["bracket depth"].tolist() == brackets + [0] * 10
    indents = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert found["indentation"].tolist() == indents + [0] * 3
    assert depths("(" * 9 + ")" * 9)["bracket depth"].max() == DEEPEST


def slow_depths(text, n_read):
    """Of the text read so far: pairs that are open, and the blank start of the last line in fours."""
    waiting, pairs = [], []
    for at, char in enumerate(text):
        if char in "([{":
            waiting.append((char, at))
        while char in ")]}" and any(opened + char in ("()", "[]", "{}") for opened, _ in waiting):
            opened, begun = waiting.pop()
            if opened + char in ("()", "[]", "{}"):
                pairs.append((begun, at))
                break
    line = text[:n_read].rpartition("\n")[2]
    blank = line[: len(line) - len(line.lstrip(" \t"))].replace("\t", "    ")
    n_open = sum(begun < n_read <= end for begun, end in pairs)
    return min(n_open, DEEPEST), min(len(blank) // 4, DEEPEST)


def test_rows_from_the_middle_of_a_document_carry_the_depths_of_the_whole():
    model = random_model(0)
    data = ProbeData(
        tuple(text[:6000] for text in read_data("stdlib").documents[:6]), "starts of files"
    )
    rows = Rows.read(model, data, (12, 48), [(0, "resid_pre")], 3)
    assert rows.is_placed.sum() >= 11 and (rows.labels["indentation"] >= 0).sum() >= 11 * 46
    tokens = data.tokens(model, 12, 48, 3).tolist()
    own = zip(*(rows.labels[name].reshape(12, -1) for name in OF_DOCUMENT), strict=True)
    n_cut = 0
    for row, at, is_placed, found in zip(
        tokens, rows.document.reshape(12, -1)[:, 0], rows.is_placed, own, strict=True
    ):
        if not is_placed:
            continue
        begin = data.documents[at].index(model.tokenizer.backend.decode(row[1:]))
        for place in (1, 2, 20, 46):
            n_read = begin + len(model.tokenizer.backend.decode(row[1 : place + 1]))
            wanted = slow_depths(data.documents[at], n_read)
            assert (found[0][place - 1], found[1][place - 1]) == wanted
            alone = slow_depths(model.tokenizer.backend.decode(row[1:]), n_read - begin)
            n_cut += alone != wanted
    assert n_cut > 2, "some rows by themselves say something else"


def test_a_row_that_stands_nowhere_or_twice_in_its_document_has_no_place():
    tokenizer = letters()
    ids = tokenizer.encode("abc", add_special_tokens=False)
    np.testing.assert_array_equal(ends_in("ppabcab", tokenizer, ids), [3, 4, 5])
    assert ends_in("abpc", tokenizer, ids) is None and ends_in("abcabc", tokenizer, ids) is None
    bytes_of = load("attn-1l").tokenizer
    ids = bytes_of.encode("x = 'é∑' ", add_special_tokens=False)
    whole = ends_in("a; x = 'é∑' \n", bytes_of, ids)
    assert whole[-1] == 12 and (np.diff(whole) >= 0).all()
    cut = next(at for at, name in enumerate(bytes_of.str_tokens(ids)) if name == "<A9>")
    np.testing.assert_array_equal(ends_in("a; x = 'é∑' \n", bytes_of, ids[cut:]), whole[cut:])


def test_rows_without_a_place_are_left_out_of_both_depths_alone():
    train, test = planted_rows(1), planted_rows(2)
    train.is_placed[:4] = False
    assert train.placed().n_rows == 20 and len(train.placed().streams[0, "resid_pre"]) == 400
    groups = _groups(train, test, make_config(get_probe("linear-probes"), {"n_controls": 2}))
    assert [(own.n_rows, *dealt) for own, _, dealt in groups] == [
        (24, "digit"),
        (20, "bracket depth"),
    ]


def planted_rows(seed, n_rows=24, n_places=20):
    """Streams in which direction 0 tells the token's label and direction 1 nothing."""
    rng = np.random.default_rng(seed)
    token = rng.integers(12, size=n_rows * n_places)
    stream = rng.normal(size=(len(token), 6))
    stream[:, 0] += 6.0 * (token % 2)
    return Rows(
        streams={(0, "resid_pre"): stream},
        labels={
            name: token % 2
            if name == "digit"
            else rng.integers(1 + (name == "bracket depth"), size=len(token))
            for name in FEATURES
        },
        token=token,
        document=np.repeat(np.arange(n_rows), n_places),
        is_placed=np.ones(n_rows, dtype=bool),
    )


def test_a_planted_direction_is_read_and_labels_that_mean_nothing_are_not():
    train, test = planted_rows(1), planted_rows(2)
    dealt = {name: controls(name, train, test, 19, 0) for name in ("digit", "bracket depth")}
    (stream,), (other,) = train.streams.values(), test.streams.values()
    together = recalls(stream, other, dealt, 0.01, test.document)
    for feature, told in (("digit", True), ("bracket depth", False)):
        found = together[feature]
        alone = recalls(stream, other, {feature: dealt[feature]}, 0.01, test.document)[feature]
        np.testing.assert_array_equal(found["accuracy"], alone["accuracy"])
        accuracy, null = found["accuracy"][0], found["accuracy"][1:]
        assert (accuracy > 0.97) == told
        assert (accuracy > null.max() + 0.02) == told
        assert found["right"].sum() <= found["seen"].sum() == len(test.document)


def test_controls_keep_each_tokens_label_the_same_everywhere():
    train, test = planted_rows(1), planted_rows(2)
    dealt = controls("digit", train, test, 5, 0)
    tokens = np.concatenate([train.token, test.token])
    for row in np.concatenate([dealt.train, dealt.test], axis=1):
        assert all(len(np.unique(row[tokens == token])) == 1 for token in np.unique(tokens))
        assert row.sum() > 0
    np.testing.assert_array_equal(dealt.train[0], train.labels["digit"])


def test_streams_are_read_at_every_depth_and_in_the_middle_of_layers(build):
    table = asked(build(order="sssf", norm="LN", seed=3))
    accuracy = of(table, "accuracy")
    kept = accuracy[accuracy["item"] == "position"]
    assert list(zip(kept["layer"], kept["site"], strict=True)) == [
        (0, "resid_pre"), (1, "resid_post"), (2, "resid_post"), (3, "resid_mid"), (3, "resid_post"),
    ]  # fmt: skip
    selective = of(table, "selectivity")["value"].to_numpy()
    np.testing.assert_allclose(selective, accuracy["value"] - accuracy["null_mean"])
    assert (accuracy["null_std"] > 0).all()
    assert accuracy["p"].isna().equals(accuracy["item"].isin(OF_PLACE))


def test_of_many_depths_the_chosen_are_evenly_spaced(build):
    deep = build(order="s" * 9)
    assert places(deep, 100) == [
        (0, "resid_pre"),
        *((depth, "resid_post") for depth in range(1, 10)),
    ]
    assert [depth for depth, _ in places(deep, 4)] == [0, 3, 6, 9]
    assert places(build(order="sf", norm="LN", parallel=True), 9)[1:] == [(1, "resid_post")]
