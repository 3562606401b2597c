"""The commands on one pass made affine, as a person uses them."""

from dataclasses import replace

import numpy as np
import pytest

from app.path_reports import path_lines
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.search import top_paths
from workbench.results import read_table

CODE = "x = [1, 2]; y = [1,"


def test_paths_add_up_on_the_page(workbench, tmp_path):
    done = workbench("paths", "attn-2l", CODE, "--top", "5", "--out", "paths.json")
    assert done.returncode == 0, done.stderr
    first, second, third, orders, _, *rows = done.stdout.splitlines()
    assert first.startswith("logit of ' 2' at 13: ") and "25 paths" in first
    assert float(second.split()[-1]) < 1e-4
    assert "every path was looked at" in third and orders.startswith("by order")
    assert rows[0].startswith("embed → 1.1") and "·2@6" in rows[0]
    table, made_by = read_table(tmp_path / "paths.json")
    assert len(table) == 5 and made_by["command"] == "paths"
    listed, total = float(second.split()[2]), float(first.split(": ")[1].split()[0])
    assert table["value"].sum() == pytest.approx(listed, abs=1e-3)
    assert table["share"].sum() == pytest.approx(listed / total, abs=1e-3)


def test_each_path_is_taken_out_when_asked(workbench, tmp_path):
    words = ("--versus", "mean", "--top", "3", "--verify", "--out", "paths.json")
    done = workbench("paths", "attn-2l", CODE, *words)
    assert done.returncode == 0, done.stderr
    assert "minus the mean" in done.stdout and "unfrozen" in done.stdout
    table, _ = read_table(tmp_path / "paths.json")
    assert table["frozen"].tolist() == pytest.approx(table["value"].tolist(), abs=1e-4)
    assert table["error"].abs().max() < 1e-4 < table["response"].abs().max()


def test_what_enters_a_component_sums_to_what_goes_on_from_it(workbench, tmp_path):
    done = workbench(
        "paths", "attn-2l", CODE, "--through", "1.1", "--top", "2", "--out", "feeds.json"
    )
    assert done.returncode == 0, done.stderr
    first, _, *_ = done.stdout.splitlines()
    assert first.startswith("all paths … → 1.1 → logit of ' 2' at 13: ")
    assert "3 others" in done.stdout
    table, _ = read_table(tmp_path / "feeds.json")
    subtotal = float(first.split(": ")[1].split()[0])
    assert len(table) == 5 and table["value"].sum() == pytest.approx(subtotal, abs=1e-3)


def test_a_search_that_was_cut_short_says_so(workbench):
    done = workbench("paths", "attn-2l", CODE, "--limit", "2", "--top", "4")
    assert done.returncode == 0, done.stderr
    assert "the limit was reached" in done.stdout
    some = ("paths", "attn-2l", CODE, "--limit", "20", "--top", "99")
    for words, told in (
        (("--threshold", "0.99"), "as large as asked"),
        (("--coverage", "0.5"), "in sizes"),
    ):
        done = workbench(*some, *words)
        assert done.returncode == 0 and told in done.stdout, done.stderr


def test_a_difference_of_nothing_has_no_shares(workbench):
    same = workbench("paths", "attn-2l", CODE, "--target", " 2", "--versus", " 2", "--top", "2")
    assert same.returncode == 0 and "nan" not in same.stdout, same.stderr


def test_cancelling_paths_are_printed_with_a_warning(attn_2l):
    frozen = freeze(attn_2l, CODE)
    found = top_paths(frozen, logit_direction(frozen), k=2)
    assert not any(line.startswith("beware") for line in path_lines(found))
    cancelling = replace(found, values=np.array([5.0, -4.0]))
    assert list(path_lines(cancelling))[-1].startswith("beware: the 2 paths listed come to 9 ")
    open_ones = replace(found, largest_open=1e3, ended_by="limit")
    assert "one subtotal left open is 1e+03" in list(path_lines(open_ones))[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("paths", "attn-2l", "x", "--through", "1.9"), "no component 1.9"),
        (("paths", "attn-2l", "x", "--through", "1.1", "--through", "0.1"), "1.1 does not feed"),
        (("paths", "attn-2l", "x", "--coverage", "2"), "coverage is 2"),
        (("paths", "attn-2l", "x", "--pos", "9"), "no position 9"),
        (("paths", "attn-2l", "x", "--target", "qqqq zz"), "tokens of attn-2l"),
        (("paths", "attn-2l", "x", "--out", "p.csv"), ".parquet"),
    ],
)
def test_a_mistake_about_paths_is_one_clear_line(workbench, words, message):
    done = workbench(*words)
    assert done.returncode == 2
    assert message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_why_names_the_pair_that_makes_induction_and_adds_up(workbench, tmp_path):
    done = workbench("why", "attn-2l", CODE, "--head", "1.1", "--out", "why.parquet")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "[13:,]" in lines[0] and "<6:·2>" in lines[0]
    assert "the largest attention" in lines[1] and "minus the mean over the other keys" in lines[2]
    assert float(lines[3].split("within ")[1].split(";")[0]) < 1e-5
    pairs = lines.index(next(line for line in lines if line.startswith("query ")))
    assert lines[pairs + 1].split()[:3] == ["embed", "0.1", "K"]
    table, made_by = read_table(tmp_path / "why.parquet")
    total = float(lines[3].split("sum to ")[1].split()[0])
    assert table["value"].sum() == pytest.approx(total, abs=1e-3)
    assert (made_by["head"], made_by["key"], made_by["versus"]) == ("1.1", 6, "mean")


def test_why_looks_past_the_first_token_and_at_what_it_is_told(workbench):
    words = ("why", "attn-2l", CODE, "--head", "0.1", "--query", "3")
    done = workbench(*words, "--versus", "none", "--by", "kind")
    assert done.returncode == 0, done.stderr
    assert "key 2 '·='" in done.stdout and "unseen by softmax" in done.stdout
    told = workbench(*words, "--key", "1", "--versus", "2", "--top", "2")
    assert told.returncode == 0, told.stderr
    assert "key 1 'x' (as given)" in told.stdout and "minus that of key 2 '·='" in told.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--head", "x"), "layer.head"),
        (("--head", "2.0"), "no head 2.0"),
        (("--head", "1.1", "--query", "99"), "no position 99"),
        (("--head", "1.1", "--query", "3", "--key", "5"), "does not see key 5"),
        (("--head", "1.1", "--versus", "most"), "'mean' or 'none'"),
        (("--head", "1.1", "--by", "token"), "component, layer, kind"),
        (("--head", "1.1", "--out", "w.csv"), ".parquet"),
    ],
)
def test_why_says_what_it_cannot_answer(workbench, words, message):
    done = workbench("why", "attn-2l", CODE, *words)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_orders_add_up_and_say_what_cancels(workbench, tmp_path):
    done = workbench("orders", "attn-2l", CODE, "--target", " 2", "--out", "orders.json")
    assert done.returncode == 0, done.stderr
    first, second, third, _, *rows = done.stdout.splitlines()
    assert first.startswith("logit of ' 2' at 13 in attn-2l: ") and "cancels" in third
    assert float(second.split()[-1]) < 1e-4
    rows = [row.split() for row in rows if "│" in row]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    total = float(first.split()[-1])
    assert float(rows[-1][2]) == pytest.approx(total, abs=0.01)
    table, made_by = read_table(tmp_path / "orders.json")
    assert table["value"].sum() == pytest.approx(total, abs=0.02) and made_by["counted"] == "all"


def test_orders_count_what_they_are_told(workbench):
    words = ("--target", " 2", "--versus", "mean", "--counted")
    done = workbench("orders", "mlp-2l", CODE, *words, "mlps")
    assert done.returncode == 0 and sum("│" in row for row in done.stdout.splitlines()) == 3
    done = workbench("orders", "mlp-2l", CODE, *words, "layers")
    assert done.returncode == 2 and "heads, mlps" in done.stderr


def test_lesions_stand_beside_what_the_frozen_network_says(workbench, tmp_path):
    done = workbench("lesions", "attn-2l", CODE, "--top", "4", "--out", "lesions.json")
    assert done.returncode == 0, done.stderr
    assert "nats per token" in done.stdout and "correlates" in done.stdout
    table, _ = read_table(tmp_path / "lesions.json")
    assert len(table) == 10
    rows = [row.split() for row in done.stdout.splitlines()[3:7]]
    assert rows[0][:2] == ["attn", "1"]
    last = table[table["lesion"].str.startswith("1.")]
    np.testing.assert_allclose(last["true"], last["frozen"], atol=1e-5)


def test_lesions_of_a_logit_need_a_target(workbench):
    done = workbench("lesions", "attn-2l", CODE, "--by", "layer", "--target", " 2")
    assert done.returncode == 0 and "logits" in done.stdout
    done = workbench("lesions", "attn-2l", CODE, "--versus", " 2")
    assert done.returncode == 2 and "--target" in done.stderr
