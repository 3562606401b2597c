"""The commands that take a model apart, as a person uses them."""

import pytest

from workbench.models.checkpoints import save_checkpoint
from workbench.results import model_hash, read_table

PROMPT = "x = [1, 2]; y = [1,"
LETTERS = {"order": "sfsf", "norm": "LN", "attn_bias": True, "mlp_bias": True}


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_checkpoint(model, tmp_path_factory.mktemp("models") / "letters")


def test_the_lens_ends_in_the_prediction_and_follows_tokens(workbench):
    done = workbench("lens", "attn-2l", PROMPT, "--token", " 2")
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1].split()
    assert last[:3] == ["layer", "1", "·2"] and last[-1] == "0"
    assert "embedding" in done.stdout


@pytest.mark.parametrize("by", ["component", "head", "source"])
def test_attributions_say_how_far_their_sum_is_from_the_logit(workbench, by):
    done = workbench("attribute", "attn-2l", PROMPT, "--by", by, "--distractor", "mean")
    assert done.returncode == 0, done.stderr
    first, second, *rows = done.stdout.splitlines()
    assert "logit of ' 2' minus 'mean'" in first
    assert float(second.split()[-1]) < 1e-4
    values = [float(row.split()[-2]) for row in rows[1:] if row.strip()]
    total = float(first.split()[-1])
    if by != "source":  # its list is cut, with the rest summed
        assert sum(values) == pytest.approx(total, abs=0.02)


def test_circuits_list_the_largest_entries_and_the_copying_score(workbench, tmp_path):
    done = workbench("circuits", "attn-2l", "--head", "1.1", "--top", "5", "--out", "top.parquet")
    assert done.returncode == 0, done.stderr
    assert "Σ Re λ / Σ |λ| = 0.99" in done.stdout and "random heads" in done.stdout
    table, made_by = read_table(tmp_path / "top.parquet")
    assert len(table) == 5 and (table["source"] == table["out"]).mean() > 0.7  # it copies
    assert table["value"].is_monotonic_decreasing
    assert made_by["head"] == "1.1" and len(made_by["model_hash"]) == 16


def test_a_virtual_head_has_circuits_too(workbench):
    words = ("--head", "1.1", "--earlier", "0.1", "--through", "k", "--kind", "qk")
    done = workbench("circuits", "attn-2l", *words, "--top", "3")
    assert done.returncode == 0, done.stderr
    assert "1.1∘0.1" in done.stdout and "QK" in done.stdout


def test_composition_puts_the_induction_pair_first(workbench):
    done = workbench("composition", "attn-2l", "--top", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].split()[:3] == ["K", "0.1", "1.1"]


def test_geometry_has_chance_beside_every_measure(workbench, folder, tmp_path):
    done = workbench("geometry", folder, "--top", "4", "--out", "g.json")
    assert done.returncode == 0, done.stderr
    assert "null_mean" in done.stdout and len(done.stdout.strip().splitlines()) == 5 + 1
    assert len(read_table(tmp_path / "g.json")[0]) > 4


def test_skip_trigrams_start_from_a_source(workbench):
    done = workbench("skip-trigrams", "attn-1l", "--source", " for", "--top", "4")
    assert done.returncode == 0, done.stderr
    rows = done.stdout.strip().splitlines()[1:]
    assert len(rows) >= 4 and all("·for" in row for row in rows[:4])


def test_a_card_names_head_and_chance(workbench):
    done = workbench("head", "attn-2l", "1.1")
    assert done.returncode == 0, done.stderr
    assert "induction" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lens", "attn-2l", ""), "empty"),
        (("lens", "attn-2l", "x", "--pos", "9"), "no position 9"),
        (("lens", "attn-2l", "x", "--token", "qqqq zz"), "tokens of attn-2l"),
        (("attribute", "attn-2l", "x", "--by", "layer"), "component, head"),
        (("attribute", "minilm", "x"), "no unembedding"),
        (("circuits", "attn-2l", "--head", "9.9"), "no head 9.9"),
        (("circuits", "attn-2l", "--head", "1.1", "--kind", "KQ"), "OV, QK"),
        (("circuits", "attn-2l", "--head", "1.1", "--by", "best"), "smallest"),
        (("circuits", "attn-2l", "--head", "1.1", "--offset", "2"), "QK circuits"),
        (("circuits", "attn-2l", "--head", "0.1", "--earlier", "1.1"), "0.1"),
        (("circuits", "minilm", "--head", "0.0"), "minilm"),
        (("composition", "attn-1l"), "layer"),
        (("skip-trigrams", "attn-1l", "--source", "no such token"), "no such token"),
        (("head", "attn-2l", "x"), "layer.head"),
        (("geometry", "attn-2l", "--out", "g.csv"), ".parquet"),
        (("lens", "nonsense", "x"), "no model"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_two(workbench, words, message):
    done = workbench(*words)
    assert done.returncode == 2
    assert message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_equal_models_have_equal_hashes_and_a_changed_weight_another(build):
    first, second = build(**LETTERS), build(**LETTERS)
    assert model_hash(first) == model_hash(second)
    second.blocks[0].attn.W_Q.data[0, 0, 0] += 1e-3
    assert model_hash(first) != model_hash(second)
