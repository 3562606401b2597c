"""The study of brain-inspired modular training: kept numbers are quoted, runs are made, resumed and read."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from studies.brain_inspired_modular_training import encodings, numbers, published, runs, spread
from studies.brain_inspired_modular_training.figure import draw
from studies.brain_inspired_modular_training.study import (
    COMPARED,
    FORMULAS,
    HERE,
    MEASURES,
    PAIRS,
    Config,
    Findings,
    main,
    quick,
)
from studies.findings import read_findings, read_numbers
from workbench.errors import WorkbenchError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training import experiment_runs
from workbench.training.experiments import VARIANTS, Request, experiment, experiment_names
from workbench.training.mlp import MLP, MLPConfig

PART = runs.Part("bimt-independence", (0, 1), steps=30)
SHAPE = {"order": "sfsf", "d_model": 16, "n_heads": 1, "positions": "none"}


@pytest.fixture(scope="module")
def kept() -> Findings:
    return read_findings(Findings, HERE / "results")


@pytest.fixture(scope="module", autouse=True)
def few_shuffles():
    """The null is another module's affair, and costs seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.training.reports.N_SHUFFLES", 2)
        patch.setattr(runs, "N_SHUFFLES", 2)
        yield


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Ten networks of thirty steps, trained in this process."""
    folder = tmp_path_factory.mktemp("runs")
    rows = pd.DataFrame([runs.row_of(request, folder) for request in PART.requests()])
    return folder, rows


def test_the_readme_quotes_the_kept_numbers(kept):
    assert read_numbers(HERE / "README.md") == numbers.blocks(kept)


def test_every_claim_holds(kept):
    assert kept.holds and all(kept.holds.values()), kept.holds


def test_what_is_kept_follows_from_its_runs(kept):
    again = spread.summary(kept.runs, MEASURES)
    pd.testing.assert_frame_equal(again, kept.variants, check_dtype=False, rtol=1e-4)
    again = spread.contrasts(kept.runs, PAIRS, COMPARED)
    pd.testing.assert_frame_equal(again, kept.contrasts, check_dtype=False, rtol=1e-3, atol=1e-4)
    again = published.beside(kept.runs)
    pd.testing.assert_frame_equal(again, kept.published, check_dtype=False, rtol=1e-4)


def test_formulas_are_studied_in_all_variants_from_five_seeds_at_the_published_length(kept):
    counts = kept.runs.groupby(["experiment", "variant"])["seed"].nunique()
    for name in (*FORMULAS, "bimt-two-moons"):
        assert counts[name].to_dict() == dict.fromkeys(VARIANTS, 5)
        steps = kept.runs.loc[kept.runs["experiment"] == name, "steps"]
        assert (steps == experiment(name).steps).all()
    assert set(kept.runs["experiment"]) <= set(experiment_names())


def test_both_forms_study_every_experiment_that_needs_no_files():
    quicker = {part.name for part in quick().parts}
    assert quicker == {part.name for part in Config().parts} == set(experiment_names())


def test_a_finished_run_is_read_and_an_altered_one_measured_anew(few, monkeypatch):
    folder, rows = few
    request = PART.requests()[0]
    monkeypatch.setattr(runs, "train", refuse)
    assert runs.row_of(request, folder) == pytest.approx(rows.iloc[0].to_dict(), nan_ok=True)
    monkeypatch.undo()
    other = runs.folder_of(PART.requests()[1], folder) / "model.safetensors"
    mine = runs.folder_of(request, folder) / "model.safetensors"
    before = mine.read_bytes()
    mine.write_bytes(other.read_bytes())
    try:
        assert runs.row_of(request, folder)["test_loss"] == pytest.approx(rows["test_loss"][1])
    finally:
        mine.write_bytes(before)
        runs.row_of(request, folder)


def test_inputs_in_use_carry_the_score_and_others_do_not():
    """A network whose first matrix reads three of eight channels, of both tokens."""
    task = experiment_runs.make_task(experiment("bimt-s4"))
    model = MLP(MLPConfig(widths=(16, 20, 24), embedding=24, in_fold=2, seed=0))
    used = np.isin(np.arange(8), (1, 4, 6))
    with torch.no_grad():
        model.layers[0].W[np.tile(~used, 2)] *= 1e-3
        model.layers[0].W[np.tile(used, 2)] *= 5
    before = model.layers[0].W.detach().clone()
    assert (encodings.used_inputs(model) == used).all()
    whole = task.measure(model)["test_accuracy"]
    # What is cut hardly mattered; with everything cut one answer is given to all.
    assert encodings.score_with(model, task, used) == pytest.approx(whole, abs=0.03)
    assert encodings.score_with(model, task, np.zeros(8, bool)) <= 2 / 24
    assert torch.equal(model.layers[0].W, before)
    alone, at_random = encodings.knockout(model, task)
    assert alone == encodings.score_with(model, task, used) and 0 <= at_random <= 1


def test_a_unit_that_holds_the_slope_is_found():
    chosen = experiment("bimt-in-context")
    task = experiment_runs.make_task(chosen)
    model = Transformer(
        TransformerConfig(**{**SHAPE, **task.shape}), None, name="t", seed=0
    ).double()
    best, of_y = encodings.slope(model.eval(), task)
    # Var(w) E(x)² / Var(wx) for w over [-1, 1] and x over [1, 3]: 4 / (4 + 1/3).
    assert of_y == pytest.approx(12 / 13, abs=0.01) and 0 < best < 1
    held = task.sequences.inputs[task.n_train :]
    w = held[:, 1, 0] / held[:, 0, 1]

    def plant(activation, hook):
        return torch.cat([w[:, None, None].expand(-1, 3, 1), activation[..., 1:]], -1)

    with model.hooks([("blocks.1.hook_resid_post", plant)]):
        assert encodings.slope(model, task)[0] == pytest.approx(1)


def refuse(*_):
    raise AssertionError("trained again")


def test_a_row_holds_what_the_library_measures(few):
    folder, rows = few
    request = Request(name="bimt-independence", variant="bimt", seed=1, steps=30)
    table = runs.measured(request, folder).set_index("measure")
    (row,) = rows[(rows["variant"] == "bimt") & (rows["seed"] == 1)].to_dict("records")
    assert row["test_loss"] == table["value"]["task loss"]
    assert row["q_pruned_z"] == pytest.approx(table["z"]["Newman Q, pruned"], nan_ok=True)
    assert row["q_mean"] == table["null_mean"]["Newman Q"]
    assert row["inputs_used"] == 4


def test_variants_of_a_seed_begin_alike_and_swaps_alone_change_no_loss(few):
    """Thirty steps are over before the first swap."""
    rows = few[1].set_index(["seed", "variant"])["test_loss"]
    for seed in (0, 1):
        assert rows[seed, "swap"] == rows[seed, "l1"]
        assert rows[seed, "bimt"] == rows[seed, "local"]


@pytest.mark.slow
def test_processes_make_the_same_rows(few, tmp_path):
    part = runs.Part("bimt-independence", (0,), steps=2)
    said = []
    rows = runs.all_runs([part], tmp_path, 1, said.append)
    assert list(rows["variant"]) == list(VARIANTS) and len(said) == 5
    again = pd.DataFrame([runs.row_of(request, tmp_path) for request in part.requests()])
    pd.testing.assert_series_equal(rows["test_loss"], again["test_loss"])


def test_intervals_are_students():
    x = np.array([1.0, 2.0, 4.0])
    found = spread.interval(x)
    low, high = stats.t.interval(0.95, 2, x.mean(), stats.sem(x))
    assert found == pytest.approx((x.mean(), low, high))
    logs = spread.interval(np.exp(x), log=True)
    assert np.log(logs) == pytest.approx(found)
    wider = spread.prediction(x)
    assert wider.high - wider.value == pytest.approx((high - x.mean()) * np.sqrt(4))
    for fewer in ([3.0], [2.0, 4.0]):
        assert np.isnan(spread.interval(fewer)[1:]).all() and spread.interval(fewer).value == 3


def test_a_prediction_interval_holds_one_more_value_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((2000, 4))
    found = [spread.prediction(row[:3]) for row in draws]
    share = np.mean([one.low <= row[3] <= one.high for one, row in zip(found, draws, strict=True)])
    assert abs(share - 0.95) < 4 * np.sqrt(0.05 * 0.95 / 2000)


def made_up(variant, losses, qs):
    """One experiment's runs, a seed for each number."""
    return [
        {
            "experiment": "bimt-independence",
            "variant": variant,
            "seed": seed,
            "test_loss": loss,
            "q": q,
        }
        for seed, (loss, q) in enumerate(zip(losses, qs, strict=True))
    ]


def test_contrasts_are_paired_by_seed():
    rows = made_up("l1", (1.0, 4.0, 3.0), (0.1, 0.9, 0.4))
    rows += made_up("bimt", (2.0, 8.0, 6.0, 99.0), (0.2, 1.0, 0.5, 99.0))
    pairs = [("bimt", "l1"), ("swap", "l1")]
    found = spread.contrasts(pd.DataFrame(rows), pairs, ["test_loss", "q"])
    assert list(found["kind"]) == ["ratio", "difference"] and list(found["n"]) == [3, 3]
    assert list(found["value"]) == pytest.approx([2.0, 0.1])
    assert list(found["high"] - found["low"]) == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(
    ("losses", "agrees"),
    [((6e-3, 7e-3, 8e-3), "yes"), ((1e-3, 1.1e-3, 0.9e-3), "no"), ((7.4e-3,), "too few seeds")],
)
def test_a_reported_number_agrees_where_one_more_seed_is_expected(losses, agrees):
    rows = pd.DataFrame(made_up("bimt", losses, losses)).assign(mean_length=0.1, cross_talk=0.0)
    table = published.beside(rows)
    row = table[(table["source"] == "notebooks") & (table["measure"] == "test_loss")].iloc[0]
    assert row["reported"] == 7.4e-3 and row["agrees"] == agrees
    assert row["mean"] == pytest.approx(np.exp(np.log(losses).mean()))


def test_the_figure_is_drawn_from_runs(few, tmp_path):
    folder, rows = few
    found = Findings(
        runs=rows,
        variants=spread.summary(rows, MEASURES),
        contrasts=spread.contrasts(rows, PAIRS, COMPARED),
        published=published.beside(rows),
    )
    draw(found, tmp_path / "figure.png", folder)
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert set(numbers.blocks(found)) == set(read_numbers(HERE / "README.md"))


def test_only_what_is_finished_is_measured_if_so_asked(tmp_path):
    with pytest.raises(WorkbenchError, match="holds no finished run"):
        runs.all_runs([PART], tmp_path, 1, print, finished=True)
    assert not any(tmp_path.iterdir())


def test_an_unknown_word_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--fast"])
    assert "unrecognized" in capsys.readouterr().err
