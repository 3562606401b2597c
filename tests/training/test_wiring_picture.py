"""The picture holds every wire once, the thickest where there are too many, and its dots follow their units."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.test_weights import OWN, randomised
from workbench.errors import ConfigError
from workbench.training.layouts import grid_layout, line_layout
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.regularizers.exchange import movables, permute
from workbench.training.wires import groups, wires
from workbench.training.wiring_picture import wiring_picture
from workbench.training.wiring_series import followed, wiring_series

MLPS = {
    "chain": MLPConfig(widths=(4, 9, 6, 3)),
    "tokens": MLPConfig(widths=(12, 7, 9), embedding=11, in_fold=2),
    "one layer": MLPConfig(widths=(6, 1)),
}


def network(build, name):
    return MLP(MLPS[name]) if name in MLPS else randomised(build, OWN[name])


@pytest.mark.parametrize("name", [*MLPS, *OWN])
def test_every_wire_is_drawn_once_between_its_units(build, name):
    model = network(build, name)
    picture = wiring_picture(model, limit=200_000)
    dots, lines = picture.dots, picture.lines
    names = [block.name for block in picture.blocks]
    assert sorted(names) == sorted(block.name for block in wires(model))
    for block in wires(model):
        mine, weight = lines.block == names.index(block.name), block.weight.detach().numpy()
        ends = []
        for end, group in ((lines.source[mine], block.source), (lines.target[mine], block.target)):
            assert (dots.group[end] == dots.groups.index(group)).all()
            ends.append(dots.index[end])
        assert mine.sum() == np.count_nonzero(weight)
        again = np.zeros_like(weight)
        again[ends[0], ends[1]] = lines.weight[mine]
        np.testing.assert_array_equal(again, weight)
    assert picture.left_out == 0 and picture.left_out_share == 0


@pytest.mark.parametrize("name", [*MLPS, *OWN])
def test_lines_go_up_and_dots_stay_in_the_picture(build, name):
    model = network(build, name)
    picture = wiring_picture(model, limit=200_000)
    dots, lines = picture.dots, picture.lines
    assert (dots.y[lines.target] > dots.y[lines.source]).all()
    assert (dots.x >= 0).all() and (dots.x <= 1).all()
    places = list(zip(dots.x.tolist(), dots.y.tolist(), strict=True))
    assert len(set(places)) == len(places)
    for name_of, n in groups(model).items():
        mine = dots.group == dots.groups.index(name_of)
        assert mine.sum() % n == 0 and set(dots.index[mine]) == set(range(n))


def test_the_stream_is_drawn_at_each_depth_between_what_writes_and_what_reads(build):
    model = randomised(build, OWN[next(iter(OWN))])
    picture = wiring_picture(model)
    names = [name for name, _ in picture.rows]
    parts = sum((block.attn is not None) + (block.mlp is not None) for block in model.blocks)
    assert names.count("stream") == 1 + parts
    assert [y for _, y in picture.rows] == list(range(len(names)))
    assert all(a == "stream" or b == "stream" for a, b in pairwise(names))


def test_heads_have_slots_of_their_own(build):
    shape = {"order": "s", "head_sizes": ((4, 8, 4, 8),), "attn_bias": True}
    model = randomised(build, shape)
    picture = wiring_picture(model)
    boxes = [box for box in picture.boxes if box[0].startswith("head ")]
    assert [box[0] for box in boxes] == [f"head 0.{head}" for head in range(4)]
    assert all(a[2] < b[1] for a, b in pairwise(boxes))
    starts = np.cumsum([0, 4, 8, 4, 8])
    for group in ("blocks.0.qk", "blocks.0.vo"):
        mine = picture.dots.group == picture.dots.groups.index(group)
        x = picture.dots.x[mine]
        for head, (_, left, right, row) in enumerate(boxes):
            units = x[starts[head] : starts[head + 1]]
            assert (units > left).all() and (units < right).all()
            assert (picture.dots.y[mine] == row).all()


def test_the_largest_of_all_are_kept_in_an_mlp():
    model = MLP(MLPS["chain"])
    picture = wiring_picture(model, limit=40)
    sizes = np.concatenate([b.weight.detach().abs().flatten().numpy() for b in wires(model)])
    kept = np.sort(sizes)[::-1][:40]
    np.testing.assert_array_equal(np.abs(picture.lines.weight), kept)
    assert picture.n_lines == len(sizes) and picture.left_out == len(sizes) - 40
    assert picture.left_out_share == pytest.approx(1 - kept.sum() / sizes.sum())
    assert picture.largest == sizes.max() and set(picture.limits().values()) == {sizes.max()}


def test_each_block_has_its_share_of_lines_in_a_transformer(build):
    model = randomised(build, OWN[next(iter(OWN))])
    picture = wiring_picture(model, limit=300)
    table = picture.table()
    assert table["shown"].sum() == 300
    roomy = table[table["shown"] < table["wires"]]
    assert roomy["shown"].max() - roomy["shown"].min() <= 1
    for block in wires(model):
        row = table.set_index("block").loc[block.name]
        size = np.sort(block.weight.detach().abs().flatten().numpy())[::-1]
        assert row["share_shown"] == pytest.approx(size[: int(row["shown"])].sum() / size.sum())
    lines = picture.lines
    parts = np.abs(lines.weight) / np.array(list(picture.limits().values()))[lines.block]
    assert (np.diff(parts) <= 1e-6).all() and parts.max() == pytest.approx(1)


def test_zeros_are_no_lines():
    model = MLP(MLPS["chain"])
    with torch.no_grad():
        for layer in model.layers:
            layer.W[::2] = 0
    n = sum(int(block.weight.count_nonzero()) for block in wires(model))
    assert wiring_picture(model).shown == wiring_picture(model).n_lines == n
    with torch.no_grad():
        for layer in model.layers:
            layer.W.zero_()
    empty = wiring_picture(model)
    assert empty.shown == empty.largest == empty.left_out_share == 0


def test_labels_stand_where_their_units_stand():
    model = MLP(MLPS["chain"])
    for items in movables(model):
        if items.name in ("inputs", "outputs"):
            permute(model, items, torch.randperm(items.n_items))
    dots = wiring_picture(model).dots
    of = {n: [s for s, g in zip(dots.labels, dots.group, strict=True) if g == i]
          for i, n in enumerate(dots.groups)}  # fmt: skip
    assert of["inputs"] == [f"x{i + 1}" for i in model.in_perm.tolist()]
    assert of["outputs"] == [f"y{i + 1}" for i in model.out_perm.tolist()]
    named = wiring_picture(model, labels={"inputs": "abcd"}).dots.labels[:4]
    assert named == tuple("abcd"[i] for i in model.in_perm.tolist())


def test_squares_are_drawn_aslant_without_leaving_their_row():
    model = MLP(MLPConfig(widths=(16, 9, 4)))
    dots = wiring_picture(model, grid_layout(model)).dots
    assert np.abs(dots.y - np.round(dots.y)).max() < 0.25
    first = dots.x[:16].reshape(4, 4)
    assert (np.diff(first, axis=1) > 0).all() and (
        np.diff(dots.y[:16].reshape(4, 4), axis=0) > 0
    ).all()


@pytest.mark.parametrize("name", [*MLPS, "attn"])
def test_units_are_followed_where_they_move(build, name):
    before = network(build, name) if name in MLPS else randomised(build, {"order": "s"})
    after, moved = copy.deepcopy(before), {n: np.arange(k) for n, k in groups(before).items()}
    generator = torch.Generator().manual_seed(3)
    for items in movables(after):
        order = torch.randperm(items.n_items, generator=generator)
        permute(after, items, order)
        for group, units in items.units:
            rows = moved[group].copy()
            # What stood at order[i] comes to place i.
            for place, item in enumerate(order.tolist()):
                for to, source in zip(units[place].tolist(), units[item].tolist(), strict=True):
                    rows[moved[group] == source] = to
            moved[group] = rows
    found = followed(before, after)
    assert {group: found[group].tolist() for group in moved} == {
        group: order.tolist() for group, order in moved.items()
    }


def test_a_series_keeps_its_dots_and_only_moves_them():
    first = MLP(MLPS["chain"])
    second = copy.deepcopy(first)
    items = next(items for items in movables(second) if items.name == "hidden 0")
    order = torch.tensor([1, 0, *range(2, 9)])
    permute(second, items, order)
    series = wiring_series([first, first, second], [0, 10, 20])
    hidden = series.pictures[0].dots.group == series.pictures[0].dots.groups.index("hidden 0")
    start = int(np.flatnonzero(hidden)[0])
    assert (series.stands[:2] == np.arange(series.stands.shape[1])).all()
    assert series.stands[2][start : start + 2].tolist() == [start + 1, start]
    assert sorted(series.stands[2]) == list(range(series.stands.shape[1]))


def test_what_cannot_be_drawn_is_refused(build):
    model = MLP(MLPS["chain"])
    for wrong in (0, -1, 10**9, 2.5):
        with pytest.raises(ConfigError, match="1 to 200,000 lines"):
            wiring_picture(model, limit=wrong) if isinstance(wrong, int) else _untyped(model, wrong)
    with pytest.raises(ConfigError, match="no group 'x'"):
        wiring_picture(model, labels={"x": ["a"]})
    with pytest.raises(ConfigError, match="3 labels for the 4 units"):
        wiring_picture(model, labels={"inputs": "abc"})
    with pytest.raises(ConfigError, match="places for 5 of the 4"):
        wiring_picture(model, line_layout(MLP(MLPConfig(widths=(5, 9, 6, 3)))))
    with pytest.raises(ConfigError, match="one for each"):
        wiring_series([model], [])
    with pytest.raises(ConfigError, match="not of one run"):
        wiring_series([model, MLP(MLPS["one layer"])], [0, 1])
    with torch.no_grad():
        model.layers[0].W[0, 0] = torch.nan
    with pytest.raises(ConfigError, match=r"1 of the 36 weights of layers\.0\.W are not finite"):
        wiring_picture(model)


def _untyped(model, limit):
    from workbench.training.wiring_picture import wiring_picture as checked

    return getattr(checked, "__wrapped__", checked)(model, limit=limit)
