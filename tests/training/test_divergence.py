"""Runs that are lost while their loss is still a number; and those that only look so, which must go on."""

import dataclasses
import math

import pytest
import torch

from workbench.errors import DivergedError
from workbench.training.config import TrainingConfig
from workbench.training.divergence import FACTOR, N_LOSSES, Bound
from workbench.training.estimate import estimate
from workbench.training.loop import fit, read_metrics
from workbench.training.making import made
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.optimizers import optimizers_for
from workbench.training.plan import MLPShape, Plan, TransformerShape, presets
from workbench.training.run_folder import create
from workbench.training.shaping import Shaping
from workbench.training.state import STATE_FILE, read_counters, restore_state
from workbench.training.tasks import formula_task
from workbench.training.working import work

SHAPE = MLPConfig(widths=(4, 20, 20, 2))
TASK = formula_task("independence")
CONFIG = TrainingConfig(
    steps=90, lr=2e-3, muon_lr=None, warmup=0.0, decay=0.0, clip=None, save_every=5, bf16=False
)
WILD = dataclasses.replace(presets()["bimt-independence/none"], steps=400, snapshots=2, lr=100.0)


@pytest.fixture
def plain(monkeypatch):
    """Without probes, which are another module's affair and cost seconds."""
    monkeypatch.setattr("workbench.training.working.default_probes", lambda plan, model: {})


def thrown(steps, by=1e4):
    """A hook that makes the outputs of these steps' weights large, and small again afterwards."""

    def hook(model, optimizers, step, lr):
        factor = by ** ((step + 1 in steps) - (step in steps))
        with torch.no_grad():
            model.layers[-1].W.mul_(factor)

    return hook


def ran(out, hook, config=CONFIG, progress=None):
    model = MLP(SHAPE)
    return fit(
        model, TASK, config, out, penalties=Shaping(after_step=(hook,)), progress=progress
    ), model


# --- the rule ----------------------------------------------------------------------------------------


def test_the_bound_is_a_hundred_times_the_first_loss_or_that_of_answering_nothing(tmp_path):
    with torch.no_grad():
        first = float(TASK.train.loss(MLP(SHAPE)(TASK.train.inputs)))
    nothing = float(TASK.train.targets.pow(2).mean())
    config = dataclasses.replace(CONFIG, validate_every=7)
    ran(tmp_path, thrown(()), config, lambda seen: False)
    counters = read_counters(tmp_path / STATE_FILE)
    assert counters["scale"] == pytest.approx(max(first, nothing))
    assert Bound(scale=counters["scale"]).limit == pytest.approx(100 * max(first, nothing))
    assert len(counters["losses"]) == counters["step"] == 7


def test_over_half_of_the_last_losses_must_be_beyond_it():
    bound = Bound(scale=1.0)
    high, low = 2 * FACTOR, 0.5
    for index in range(4 * N_LOSSES):
        assert bound.add(high if index % 2 else low) is None
    assert bound.add(low) is None and bound.add(low) is None
    found = [bound.add(high) for _ in range(N_LOSSES)]
    assert found[-1] == high and found[0] is None
    assert [bound.add(low) for _ in range(N_LOSSES)][-1] is None


def test_a_bound_without_a_scale_refuses_no_number():
    bound = Bound()
    assert bound.admits(1e300) and not bound.admits(math.nan) and not bound.admits(math.inf)
    assert not Bound(scale=1.0).admits(FACTOR * 1.01) and Bound(scale=1.0).admits(FACTOR)


# --- runs that are lost ------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [400, 20])
def test_a_rate_of_a_hundred_is_a_failure_with_advice(tmp_path, plain, steps):
    """Its loss is of eleven digits, and was called finished."""
    folder = create(tmp_path, dataclasses.replace(WILD, steps=steps))
    assert work(folder) == 1
    status = folder.status
    assert status.state == "failed" and "lower rate of learning" in status.message
    assert "beyond" in status.message and "nan" not in status.message
    assert not (folder.path / "model.safetensors").exists()
    assert not (folder.path / STATE_FILE).exists(), "no weights of this run are worth keeping"
    assert read_metrics(folder.path)[-1]["test_loss"] > 1e6


def test_a_state_whose_loss_is_beyond_the_bound_does_not_replace_a_good_one(tmp_path):
    """The blow comes at step 23: the state of step 20 stays, whose loss is that of a healthy run."""
    with pytest.raises(DivergedError, match=r"median of the last 50 .*after 20 steps is kept"):
        ran(tmp_path, thrown(range(23, 90)))
    assert read_counters(tmp_path / STATE_FILE)["step"] == 20
    model = MLP(SHAPE)
    restore_state(tmp_path / STATE_FILE, model, optimizers_for(model, CONFIG))
    assert TASK.measure(model)["train_loss"] < 2


def test_a_transformer_thrown_off_in_two_steps_keeps_no_ruin(tmp_path, plain):
    plan = dataclasses.replace(presets()["induction-2l"], lr=50.0, muon_lr=50.0, steps=40)
    plan = dataclasses.replace(plan, snapshots=0, batch_rows=4)
    folder = create(tmp_path, plan)
    assert work(folder) == 1
    assert folder.metrics()["loss"].iloc[-1] > 1e6
    assert not (folder.path / STATE_FILE).exists()


def test_an_interruption_does_not_start_the_count_anew(tmp_path):
    """Its losses so far are part of its state."""
    hook, config = thrown(range(30, 90)), dataclasses.replace(CONFIG, validate_every=14)
    ends = []
    assert not ran(tmp_path / "cut", hook, config, lambda seen: seen.step < 28)[0]
    assert len(read_counters(tmp_path / "cut" / STATE_FILE)["losses"]) == 28
    for name in ("whole", "cut"):
        with pytest.raises(DivergedError, match="median") as end:
            ran(tmp_path / name, hook, config)
        ends.append(str(end.value).partition(", step ")[2].partition(":")[0])
    assert ends[0] == ends[1]
    # Without the 28 losses from before, 50 would not have been seen by then.
    assert int(ends[1]) < 28 + N_LOSSES


def test_the_estimate_of_a_run_that_saves_nothing_is_still_one():
    plan = Plan(
        name="wild", task="independence", network=MLPShape(hidden=(20, 20)), lr=100.0, steps=100
    )
    found = estimate(plan)
    assert found.bytes_on_disk > 6 * 4 * found.n_parameters


# --- runs that must go on ----------------------------------------------------------------------------


def test_a_spike_is_not_a_divergence_though_it_is_not_saved(tmp_path):
    """Steps 38 to 52 are beyond the bound: nothing is saved in them, and the run ends as well as without."""
    hook, saved = thrown(range(38, 53)), []

    def note(seen):
        if (tmp_path / STATE_FILE).is_file():
            saved.append((seen.step, read_counters(tmp_path / STATE_FILE)["step"]))

    config = dataclasses.replace(CONFIG, validate_every=6)
    done, _ = ran(tmp_path, hook, config, note)
    assert done
    assert dict(saved)[54] == 35 and dict(saved)[60] == 55


def test_a_run_that_is_paused_in_a_spike_goes_on_from_the_last_good_state(
    tmp_path, plain, monkeypatch
):
    plan = dataclasses.replace(WILD, lr=2e-3, steps=60)
    folder = create(tmp_path, plan)

    def parts_with(given, hook):
        parts = made(given, folder.path)
        return dataclasses.replace(
            parts,
            config=dataclasses.replace(parts.config, save_every=5),
            shaping=Shaping(after_step=(hook,)),
        )

    monkeypatch.setattr("workbench.training.working.ASK_SECONDS", 0)
    monkeypatch.setattr(
        "workbench.training.working.made",
        lambda given, path: parts_with(given, thrown(range(22, 33))),
    )
    assert work(folder, lambda seen: folder.ask("pause") if seen.step == 26 else None) == 4
    status = folder.status
    assert status.state == "paused" and status.step == 20
    assert "too high to be kept" in status.message and "from step 20" in status.message


def test_validation_losses_and_penalties_are_not_held_against_a_run(tmp_path):
    """A network that memorises, as before it groks, and a penalty that jumps to a thousand losses."""

    class Rising:
        def __init__(self):
            self.n = 0

        def batch(self, seed, step):
            return TASK.batch(seed, step)

        def measure(self, model):
            self.n += 1
            return {"test_loss": 10.0**self.n}

    jump = Shaping(
        penalties={"jump": lambda model, step: 1e4 * (step > 40) + 0 * model.layers[0].W.sum()}
    )
    config = dataclasses.replace(CONFIG, validate_every=10)
    assert fit(MLP(SHAPE), Rising(), config, tmp_path, penalties=jump)
    assert read_metrics(tmp_path)[-1]["train_loss"] > 9e3


def test_a_trained_network_may_be_unlearned(tmp_path):
    """Its first loss is near 0, and decay that is far too strong takes it to what answering nothing costs."""
    model = MLP(SHAPE)
    well = dataclasses.replace(CONFIG, steps=500, lr=1e-2, save_every=500)
    assert fit(model, TASK, well, tmp_path / "first")
    first = TASK.measure(model)["train_loss"]

    def shrink(model, optimizers, step, lr):
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(0.5)

    assert fit(model, TASK, CONFIG, tmp_path / "second", penalties=Shaping(after_step=(shrink,)))
    assert TASK.measure(model)["train_loss"] > FACTOR * first, first


@pytest.mark.parametrize(
    "name", ["bimt-s4/none", "bimt-compositionality/bimt", "bimt-in-context/none", "induction-2l"]
)
def test_no_loss_of_a_published_run_comes_near_the_bound(tmp_path, name):
    plan = dataclasses.replace(presets()[name], steps=25, snapshots=0)
    parts, worst = made(plan), []
    add = Bound.add

    def noted(self, loss):
        worst.append(loss / self.scale)
        return add(self, loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bound, "add", noted)
        assert fit(parts.model, parts.task, parts.config, tmp_path, penalties=parts.shaping)
    assert len(worst) == 25 and max(worst) < FACTOR / 50


def test_dropout_and_the_check_before_a_save_share_no_numbers(tmp_path):
    """Runs that save often and seldom end with the same bits."""
    plan = Plan(
        name="r",
        task="repeats",
        network=TransformerShape(n_ctx=16, d_model=8, n_heads=2),
        steps=8,
        batch_rows=4,
    )
    ends = []
    for every in (1, 8):
        parts = made(plan)
        torch.manual_seed(3)
        config = dataclasses.replace(parts.config, save_every=every)
        fit(parts.model, parts.task, config, tmp_path / str(every))
        ends.append((parts.model.state_dict(), torch.rand(1)))
    assert all(torch.equal(ends[0][0][key], ends[1][0][key]) for key in ends[0][0])
    assert torch.equal(ends[0][1], ends[1][1])
