"""MLPs in the loop, shaped by penalties, decay and swaps: resumed to the bit, refused when anything differs."""

import copy
import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from workbench.errors import CheckpointError, ConfigError, DivergedError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.layouts import Layout, line, line_layout
from workbench.training.loop import fit, read_metrics
from workbench.training.mlp import MLP, MLPConfig, load_mlp
from workbench.training.optimizers import optimizers_for
from workbench.training.regularizers.decay import WeightDecay
from workbench.training.regularizers.l1 import L1
from workbench.training.regularizers.strength import Piecewise
from workbench.training.regularizers.swaps import Swaps
from workbench.training.regularizers.wiring import WiringLength
from workbench.training.shaping import Shaping, as_shaping, described
from workbench.training.state import STATE_FILE, read_counters, restore_state
from workbench.training.tasks import Labelled, Numbers, Repeats, Task

SHAPE = MLPConfig(widths=(3, 8, 6, 2))
CONFIG = TrainingConfig(
    steps=12, validate_every=2, save_every=5, clip=None, bf16=False, weight_decay=0.1, keep=(0, 6)
)


@dataclasses.dataclass(frozen=True)
class Sums:
    """(x0 + x1, x2²) of fresh numbers in every step."""

    kind: str = "numbers"
    scale: float = 1.0

    def batch(self, seed, step):
        x = torch.from_numpy(np.random.default_rng((seed, step)).normal(size=(16, 3))).float()
        y = torch.stack([x[:, 0] + x[:, 1], x[:, 2] ** 2], dim=1)
        return Labelled(x, y.argmax(1)) if self.kind == "labels" else Numbers(x, y * self.scale)

    def measure(self, model):
        batch = self.batch(0, 1 << 40)
        with torch.no_grad():
            return {"test_loss": float(batch.loss(batch.outputs(model)))}


def shaping(model, **changed):
    layout = line_layout(model)
    strength = Piecewise(((0, 1e-3), (0.5, 1e-2)))
    penalties = {
        "wiring": WiringLength(layout=layout, strength=strength, steps=CONFIG.steps),
        "sizes": L1(strength=1e-3),
    }
    given = {"penalties": penalties, "swaps": Swaps(layout=layout, every=3)}
    given["decay"] = WeightDecay(strength=0.1, rates={"*.W": 1.0})
    return Shaping(**given | changed)


def trained(out, *, model=None, task=None, config=CONFIG, progress=None, **changed):
    model = model or MLP(SHAPE)
    done = fit(
        model, task or Sums(), config, out, penalties=shaping(model, **changed), progress=progress
    )
    return done, model


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    done, model = trained(out)
    assert done
    return out, model


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [2, 6, 10])
def test_a_killed_and_resumed_run_ends_with_the_same_bits(uninterrupted, tmp_path, at):
    def kill(progress):
        if progress.step == at:
            raise Killed

    with pytest.raises(Killed):
        trained(tmp_path, progress=kill)
    other = MLP(SHAPE)
    if at > 5:  # a state was saved: it is what counts
        torch.nn.init.zeros_(other.layers[0].W)
    done, resumed = trained(tmp_path, model=other)
    assert done
    whole, expected = uninterrupted
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    kept = [
        [{k: v for k, v in line.items() if k not in ("seconds", "train_loss")} for line in lines]
        for lines in (read_metrics(whole), read_metrics(tmp_path))
    ]
    assert kept[0] == kept[1]


def test_the_swaps_of_a_run_moved_something(uninterrupted):
    assert not torch.equal(uninterrupted[1].in_perm, torch.arange(3)) or not torch.equal(
        uninterrupted[1].out_perm, torch.arange(2)
    )


def test_a_finished_mlp_can_be_loaded_and_so_can_what_was_kept(uninterrupted):
    out, model = uninterrupted
    assert_close(load_mlp(out).state_dict(), model.state_dict())
    assert_close(
        load_mlp(out / "checkpoints" / "step-000000").state_dict(), MLP(SHAPE).state_dict()
    )
    assert (out / "checkpoints" / "step-000006" / "model.safetensors").is_file()
    assert not (out / STATE_FILE).exists()


def test_every_penalty_is_logged_by_name(uninterrupted):
    lines = read_metrics(uninterrupted[0])
    assert all({"test_loss", "penalty wiring", "penalty sizes"} <= set(line) for line in lines)


def test_a_logged_penalty_is_what_was_added_to_the_loss(tmp_path):
    model = MLP(SHAPE)
    start = copy.deepcopy(model)
    config = dataclasses.replace(CONFIG, steps=1, keep=())
    fit(model, Sums(), config, tmp_path, penalties=shaping(model))
    batch, given = Sums().batch(0, 0), shaping(start)
    expected = {name: float(found(start, 0).detach()) for name, found in given.penalties.items()}
    line = read_metrics(tmp_path)[0]
    task = float(batch.loss(batch.outputs(start)).detach())
    assert line["penalty wiring"] == pytest.approx(expected["wiring"])
    assert line["train_loss"] == pytest.approx(task + sum(expected.values()))


@pytest.mark.parametrize(
    "changed",
    [
        {"swaps": None},
        {"decay": None},
        {"penalties": {}},
        {"penalties": {"sizes": L1(strength=2e-3)}},
        {"swaps": Swaps(layout=line_layout(MLP(SHAPE)), every=4)},
        {"swaps": Swaps(layout=line_layout(MLP(SHAPE)), every=3, method="greedy")},
        {"swaps": Swaps(layout=Layout({"hidden 0": line(8).flip(0)}), every=3)},
        {"after_step": (lambda *given: None,)},
    ],
)
def test_a_run_with_other_shaping_is_not_resumed(tmp_path, changed):
    assert not trained(tmp_path, progress=lambda seen: False)[0]
    with pytest.raises(CheckpointError, match="other settings"):
        trained(tmp_path, **changed)
    assert trained(tmp_path)[0]


def test_a_run_in_another_precision_is_not_resumed(tmp_path):
    assert not trained(tmp_path, progress=lambda seen: False)[0]
    with pytest.raises(CheckpointError, match="other settings"):
        trained(tmp_path, model=MLP(SHAPE).double())


def scaled(factor):
    return lambda model, step: factor * model.layers[0].W.sum()


def named(model, step, factor):
    return factor * model.layers[0].W.sum()


def test_descriptions_tell_constants_apart_but_not_what_changes():
    assert described(scaled(1.0)) == described(scaled(1.0)) != described(scaled(2.0))
    assert described(partial(named, factor=1)) != described(partial(named, factor=2))
    seen = []

    def watching(model, step):
        seen.append(step)
        return 0 * model.layers[0].W.sum()

    before = described(watching)
    seen.append(3)
    assert described(watching) == before
    # What a penalty has computed and kept is not part of it.
    wiring = shaping(MLP(SHAPE)).penalties["wiring"]
    before = described(wiring)
    wiring(MLP(SHAPE), 0)
    assert described(wiring) == before
    assert Shaping().fingerprint() == ""


def test_penalties_in_a_row_are_named_and_numbered():
    given = [L1(strength=1.0), L1(strength=2.0), named, lambda model, step: model]
    assert list(as_shaping(given).penalties) == ["L1", "L1 2", "named", "penalty"]
    with pytest.raises(ConfigError, match="has a name"):
        Shaping(penalties={"": named})


def test_hooks_follow_each_step_with_its_number_and_rate(tmp_path):
    seen = []

    def hook(model, optimizers, step, lr):
        seen.append(
            (step, lr, set(optimizers), int(optimizers["adamw"].state[model.layers[0].W]["step"]))
        )

    trained(tmp_path, after_step=(hook,))
    assert [step for step, *_ in seen] == list(range(12))
    assert [lr for _, lr, *_ in seen] == [CONFIG.lr * CONFIG.rate(step) for step in range(12)]
    assert all(kinds == {"adamw"} and taken == step + 1 for step, _, kinds, taken in seen)


def test_swaps_come_after_every_third_step_and_never_lengthen(tmp_path):
    seen = []

    class Watched(Swaps):
        def __call__(self, model, optimizers=()):
            done = super().__call__(model, optimizers)
            seen.append((done.before, done.after, len(list(optimizers))))
            return done

    trained(tmp_path, swaps=Watched(layout=line_layout(MLP(SHAPE)), every=3))
    assert len(seen) == 4
    assert all(after <= before and held == 1 for before, after, held in seen)


def test_decay_alone_shrinks_as_its_formula_says(tmp_path):
    """With a rate of learning whose steps are undone, only the decay is left."""
    model, start = MLP(SHAPE), MLP(SHAPE)
    held = {}

    def keep(model, step):
        held.update({name: weight.detach().clone() for name, weight in model.named_parameters()})
        return 0 * model.layers[0].W.sum()

    config = dataclasses.replace(CONFIG, steps=1, lr=0.5, weight_decay=0.0, warmup=0.0, keep=())
    decay = WeightDecay(strength=0.2, rates={"layers.1.W": 1.0})
    fit(model, Sums(), config, tmp_path, penalties=Shaping(penalties={"keep": keep}, decay=decay))
    plain = MLP(SHAPE)
    fit(plain, Sums(), config, tmp_path / "plain", penalties=[keep])
    assert_close(held, dict(start.named_parameters()))
    factor = 1 - config.lr * config.rate(0) * 0.2
    assert_close(model.layers[1].W, plain.layers[1].W * factor)
    assert_close(model.layers[0].W, plain.layers[0].W)


def test_without_a_clip_the_gradient_is_left_as_it_is(tmp_path):
    """AdamW forgets the gradient's scale; plain moments do not."""
    moments = {}
    for clip in (None, 1e9, 1e-3):
        model = MLP(SHAPE)

        def look(model, optimizers, step, lr, clip=clip):
            moments[clip] = optimizers["adamw"].state[model.layers[0].W]["exp_avg"].clone()

        config = dataclasses.replace(CONFIG, steps=1, clip=clip, keep=())
        fit(model, Sums(), config, tmp_path / str(clip), penalties=Shaping(after_step=(look,)))
    assert torch.equal(moments[None], moments[1e9])
    assert moments[1e-3].norm() < 0.1 * moments[None].norm()


@pytest.mark.parametrize("kind", ["numbers", "labels"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_mlp_learns(tmp_path, kind, dtype):
    @dataclasses.dataclass(frozen=True)
    class Cast(Sums):
        def batch(self, seed, step):
            batch = super().batch(seed, step)
            changed = {"inputs": batch.inputs.to(dtype)}
            if isinstance(batch, Numbers):
                changed["targets"] = batch.targets.to(dtype)
            return dataclasses.replace(batch, **changed)

    task, model = Cast(kind), MLP(MLPConfig(widths=(3, 16, 2))).to(dtype)
    assert isinstance(task, Task)
    before = task.measure(model)["test_loss"]
    config = TrainingConfig(steps=300, lr=1e-2, clip=None, bf16=False)
    fit(model, task, config, tmp_path)
    assert load_mlp(tmp_path).layers[0].W.dtype == dtype
    assert task.measure(model)["test_loss"] < 0.2 * before


@pytest.mark.parametrize("perm", [torch.tensor([0, 0, 2]), torch.tensor([0.0, 1.5, 2.0])])
def test_a_state_whose_units_stand_at_no_places_is_refused(tmp_path, perm):
    model, optimizers = MLP(SHAPE), optimizers_for(MLP(SHAPE), CONFIG)
    state = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(state | {"model/in_perm": perm}, tmp_path / STATE_FILE)
    with pytest.raises(CheckpointError, match="in_perm is no permutation"):
        restore_state(tmp_path / STATE_FILE, model, optimizers)
    assert_close(model.state_dict(), MLP(SHAPE).state_dict())


# --- Runs that diverge -------------------------------------------------------------------------------


def explodes(at):
    def penalty(model, step):
        weight = model.layers[0].W.sum() if isinstance(model, MLP) else model.embed.W_E.sum()
        return weight * (torch.inf if step == at else 0.0)

    return penalty


def test_a_loss_that_is_no_number_stops_the_run_and_the_last_state_is_kept(tmp_path):
    with pytest.raises(DivergedError, match=r"step 7: the loss is .*penalty bang.*after 5 steps"):
        trained(tmp_path, penalties={"bang": explodes(7)})
    assert read_counters(tmp_path / STATE_FILE)["step"] == 5
    model = MLP(SHAPE)
    restore_state(tmp_path / STATE_FILE, model, optimizers_for(model, CONFIG))
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_that_diverges_before_its_first_save_says_so(tmp_path):
    with pytest.raises(DivergedError, match="Nothing was saved before"):
        trained(tmp_path, penalties={"bang": explodes(1)})


def test_a_gradient_that_is_no_number_is_not_followed(tmp_path):
    """The root's slope at zero is infinite, its value is not."""

    def rooted(model, step):
        return (model.layers[0].W.sum() * 0).sqrt()

    model = MLP(SHAPE)
    with pytest.raises(DivergedError, match="gradient"):
        trained(tmp_path, model=model, penalties={"rooted": rooted})
    assert_close(model.state_dict(), MLP(SHAPE).state_dict())


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    def spoil(model, optimizers, step, lr):
        if step == 4:
            with torch.no_grad():
                model.layers[0].b[0] = torch.nan

    with pytest.raises(DivergedError, match=r"layers\.0\.b"):
        trained(tmp_path, after_step=(spoil,))
    assert not (tmp_path / STATE_FILE).exists()


# --- The same shaping on a transformer ---------------------------------------------------------------


def test_a_shaped_transformer_resumes_to_the_bit(tmp_path):
    cfg = TransformerConfig(order="sf", d_model=16, n_heads=2, d_vocab=20, n_ctx=16, mlp_bias=True)
    task = Repeats(d_vocab=20, n_ctx=16, n_rows=4, periods=(3, 6))

    def run(out, progress=None):
        model = Transformer(cfg)
        layout = line_layout(model)
        given = Shaping(
            penalties={"wiring": WiringLength(layout=layout, strength=1e-3)},
            swaps=Swaps(layout=layout, every=3),
        )
        return fit(model, task, CONFIG, out, penalties=given, progress=progress), model

    expected = run(tmp_path / "whole")[1].state_dict()
    assert not run(tmp_path / "cut", progress=lambda seen: seen.step < 6)[0]
    done, model = run(tmp_path / "cut")
    assert done
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
