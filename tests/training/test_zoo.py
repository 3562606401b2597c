"""The bundled models: their cards tell the truth, and they do what they are there for."""

import json

import pytest
import torch

from workbench.models.catalog import ZOO
from workbench.models.checkpoints import load_checkpoint
from workbench.models.files import checkpoint_steps
from workbench.training.card import head_rows, measured
from workbench.training.held_out import held_out_text
from workbench.training.recipes import recipe, recipe_names

LANGUAGE = ("attn-0l", "attn-1l", "attn-2l", "mlp-2l")


def _card(name: str) -> dict:
    return json.loads((ZOO / name / "card.json").read_text(encoding="utf-8"))


def _scores(name: str, behaviour: str, layer: int) -> list[dict]:
    rows = [r for r in _card(name)["heads"] if (r["behaviour"], r["layer"]) == (behaviour, layer)]
    return sorted(rows, key=lambda row: -row["value"])


@pytest.fixture(scope="module", autouse=True)
def _single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_its_model_and_card(name):
    card, model = _card(name), load_checkpoint(ZOO / name)
    assert (card["name"], card["recipe"], card["seed"]) == (name, name, recipe(name).training.seed)
    assert card["summary"] == recipe(name).summary
    assert card["n_params"] == model.cfg.n_params
    assert card["licence"]
    for prompt in card["example_prompts"]:
        model.to_tokens(prompt)


@pytest.mark.parametrize("name", recipe_names())
def test_the_card_can_be_measured_again(name):
    told, model = _card(name), load_checkpoint(ZOO / name)
    for metric, value in measured(model, recipe(name).data).items():
        # Five digits are written down; sums of float32 differ between processors in the sixth.
        assert told["metrics"][metric] == pytest.approx(value, rel=1e-4, abs=1e-7), metric
    for row, again in zip(told["heads"], head_rows(model), strict=True):
        assert row["behaviour"] == again["behaviour"]
        numbers, measured_now = (
            {k: v for k, v in r.items() if k != "behaviour"} for r in (row, again)
        )
        assert numbers == pytest.approx(measured_now, rel=1e-3, abs=1e-4)


def test_the_language_models_share_one_tokenizer():
    spelled = {(ZOO / name / "tokenizer.json").read_text(encoding="utf-8") for name in LANGUAGE}
    assert len(spelled) == 1


def test_more_layers_of_attention_read_more():
    """Bigrams, then skip-trigrams, then induction."""
    loss = {name: _card(name)["metrics"]["held_out_nats_per_token"] for name in LANGUAGE}
    assert loss["attn-0l"] > loss["attn-1l"] > loss["attn-2l"]
    assert loss["attn-1l"] > loss["mlp-2l"]


@pytest.mark.parametrize("name", ["attn-2l", "induction-2l"])
def test_two_layers_hold_an_induction_circuit(name):
    best = _scores(name, "induction", layer=1)[0]
    assert best["value"] > 0.5
    assert best["low"] > 10 * best["chance"]
    previous = _scores(name, "previous-token", layer=0)[0]
    assert previous["value"] > 0.5
    assert previous["low"] > 5 * previous["chance"]


def test_one_layer_has_no_induction_head():
    assert _scores("attn-1l", "induction", layer=0)[0]["value"] < 0.1
    assert _card("attn-1l")["metrics"]["repeats_accuracy"] < 0.05


def test_the_checkpoints_span_the_formation_of_the_induction_head():
    steps = checkpoint_steps(ZOO / "attn-2l")
    assert len(steps) >= 12
    assert steps[0] == 0
    assert steps[-1] == recipe("attn-2l").training.steps
    scores = {}
    for step in (steps[0], 500, 1000):
        rows = head_rows(load_checkpoint(ZOO / "attn-2l", step=step))
        scores[step] = max(r["value"] for r in rows if r["behaviour"] == "induction")
    assert scores[0] < 0.1
    assert scores[500] < 0.1
    assert scores[1000] > 0.5


def test_the_last_checkpoint_is_the_model():
    last, model = (load_checkpoint(ZOO / "attn-2l", step=step) for step in (3000, None))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, last.state_dict()[name])


def test_modular_addition_has_grokked():
    metrics = _card("modular-addition")["metrics"]
    assert metrics["test_accuracy"] > 0.999
    assert metrics["embedding_frequencies"] <= 20
    model = load_checkpoint(ZOO / "modular-addition")
    with torch.no_grad():
        assert int(model(model.to_tokens("100 + 34 ="))[0, -1].argmax()) == 21


def test_the_zoo_fits():
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) < 40 << 20


def test_the_held_out_text_is_source_code():
    text = held_out_text()
    assert len(text) > 500_000
    assert "def " in text
