"""The loop: a killed run ends like an uninterrupted one, bit for bit; nothing is pickled or half written."""

import dataclasses
import json

import pytest
import torch
from torch.testing import assert_close

from workbench.errors import CheckpointError
from workbench.models.checkpoints import load_checkpoint
from workbench.models.config import TransformerConfig
from workbench.models.files import checkpoint_steps
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.journal import TABLE_FILE
from workbench.training.loop import METRICS_FILE, fit, read_metrics
from workbench.training.state import STATE_FILE
from workbench.training.tasks import ModularAddition, Repeats

TASK = Repeats(d_vocab=20, n_ctx=16, n_rows=4, periods=(3, 6))
SHAPE = TransformerConfig(
    order="ssf", d_model=16, n_heads=2, d_vocab=20, n_ctx=16, mlp_bias=True, dropout=0.1
)
CONFIG = TrainingConfig(
    steps=12, validate_every=2, save_every=5, keep=(0, 4, 12), bf16=False, weight_decay=0.1
)


def _weights(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out, model = tmp_path_factory.mktemp("whole"), Transformer(SHAPE)
    assert fit(model, TASK, CONFIG, out)
    return out, _weights(model)


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [2, 6, 10])
def test_a_killed_and_resumed_run_ends_with_the_same_bits(uninterrupted, tmp_path, at):
    def kill(progress):
        if progress.step == at:
            raise Killed

    with pytest.raises(Killed):
        fit(Transformer(SHAPE), TASK, CONFIG, tmp_path, progress=kill)
    resumed = Transformer(SHAPE, seed=99 if at > 5 else 0)
    assert fit(resumed, TASK, CONFIG, tmp_path)
    whole, expected = uninterrupted
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    without_time = [
        [{k: v for k, v in line.items() if k not in ("seconds", "train_loss")} for line in lines]
        for lines in (read_metrics(whole), read_metrics(tmp_path))
    ]
    assert without_time[0] == without_time[1]
    assert checkpoint_steps(tmp_path) == [0, 4, 12]


def test_cancelling_saves_and_can_be_resumed(uninterrupted, tmp_path):
    assert not fit(Transformer(SHAPE), TASK, CONFIG, tmp_path, progress=lambda p: p.step < 4)
    assert (tmp_path / STATE_FILE).is_file()
    assert not (tmp_path / "model.safetensors").exists()
    seen = []
    assert fit(Transformer(SHAPE, seed=7), TASK, CONFIG, tmp_path, progress=seen.append)
    assert [progress.step for progress in seen] == [6, 8, 10, 12]
    assert_close(load_checkpoint(tmp_path).state_dict(), uninterrupted[1])
    assert not (tmp_path / STATE_FILE).exists()


def test_a_time_limit_stops_like_a_cancellation(tmp_path):
    limited = dataclasses.replace(CONFIG, seconds=0.0)
    assert not fit(Transformer(SHAPE), TASK, limited, tmp_path)
    # Without the limit the same run goes on.
    assert fit(Transformer(SHAPE), TASK, CONFIG, tmp_path)


def test_a_state_of_other_settings_is_refused(tmp_path):
    fit(Transformer(SHAPE), TASK, CONFIG, tmp_path, progress=lambda p: False)
    other = dataclasses.replace(CONFIG, lr=1e-4)
    with pytest.raises(CheckpointError, match="other settings"):
        fit(Transformer(SHAPE), TASK, other, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64])
def test_a_broken_state_is_refused(tmp_path, content):
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="not the state"):
        fit(Transformer(SHAPE), TASK, CONFIG, tmp_path)


def test_metrics_hold_one_line_per_validation(uninterrupted):
    lines = read_metrics(uninterrupted[0])
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert [line["tokens"] for line in lines] == [64 * step for step in (2, 4, 6, 8, 10, 12)]
    assert {"loss", "accuracy", "train_loss", "seconds"} <= set(lines[0])


def test_a_torn_line_of_metrics_is_left_out(tmp_path):
    (tmp_path / METRICS_FILE).write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_the_metrics_of_a_resumed_run_survive_a_failed_rewrite(tmp_path, monkeypatch):
    fit(Transformer(SHAPE), TASK, CONFIG, tmp_path, progress=lambda p: p.step < 4)
    before = (tmp_path / METRICS_FILE).read_text()

    def full(handle):
        raise OSError("no space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            fit(Transformer(SHAPE), TASK, CONFIG, tmp_path)
    assert (tmp_path / METRICS_FILE).read_text() == before
    assert (tmp_path / STATE_FILE).stat().st_mode & 0o777 == 0o644


def test_no_scratch_file_stays(uninterrupted):
    names = {path.name for path in uninterrupted[0].iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "checkpoints",
        METRICS_FILE,
        TABLE_FILE,
    }


def test_penalties_are_added_to_the_loss(tmp_path):
    """A penalty on one weight alone, far stronger than the task, shrinks that weight."""
    steps = []

    def penalty(model, step):
        steps.append(step)
        return 100 * model.embed.W_E.pow(2).sum()

    model = Transformer(SHAPE)
    before = model.embed.W_E.norm().item()
    config = dataclasses.replace(CONFIG, weight_decay=0.0, lr=0.01)
    fit(model, TASK, config, tmp_path, penalties=[penalty])
    assert steps == list(range(12))
    assert model.embed.W_E.norm().item() < 0.8 * before


@pytest.mark.parametrize("muon_lr", [None, 0.02])
def test_the_padding_of_unequal_heads_stays_zero(tmp_path, muon_lr):
    cfg = TransformerConfig(
        order="s", d_model=16, n_heads=3, head_sizes=((2, 8, 4),), d_vocab=20, n_ctx=16
    )
    model = Transformer(cfg)
    fit(model, TASK, dataclasses.replace(CONFIG, muon_lr=muon_lr), tmp_path)
    attn = model.blocks[0].attn
    for head, size in enumerate((2, 8, 4)):
        for weight in (attn.W_Q, attn.W_K, attn.W_V):
            assert (weight[head, :, size:] == 0).all()
            assert (weight[head, :, :size] != 0).all()
        assert (attn.W_O[head, size:] == 0).all()


def test_a_tiny_model_learns_to_add(tmp_path):
    task = ModularAddition(p=5, share=0.96, n_rows=64)
    cfg = TransformerConfig(
        order="sf", d_model=32, n_heads=2, mlp="relu", d_vocab=7, d_vocab_out=5, n_ctx=3
    )
    config = TrainingConfig(steps=150, lr=5e-3, muon_lr=None, double_loss=True, bf16=False)
    model = Transformer(cfg)
    fit(model, task, config, tmp_path)
    assert task.measure(model)["train_accuracy"] == 1


@pytest.mark.parametrize("norm", ["none", "LN", "LNPre", "RMS"])
def test_training_mode_gives_the_logits_of_evaluation(norm):
    """Training skips hook points that nobody looks at; with hooks on them it passes them."""
    model = Transformer(dataclasses.replace(SHAPE, dropout=0.0, norm=norm))
    tokens = TASK.batch(0, 0).tokens
    with torch.no_grad():
        expected = model.eval()(tokens)
        assert_close(model.train()(tokens), expected, rtol=1e-4, atol=1e-5)
        seen = {}
        points = [
            "blocks.0.attn.hook_pattern",
            *(["ln_final.hook_scale"] if norm != "none" else []),
        ]
        watch = [(point, lambda value, hook: seen.update({hook.name: value})) for point in points]
        with model.hooks(fwd_hooks=watch):
            assert_close(model(tokens), expected, rtol=1e-4, atol=1e-5)
    assert set(seen) == set(points)
    assert_close(seen[points[0]].sum(-1), torch.ones(4, 2, 16))


# --- When it is measured -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (40, 10, [1, 2, 4, 8, 10, 20, 30, 40]),
        (25, 8, [1, 2, 4, 8, 16, 24, 25]),
        (3, 1, [1, 2, 3]),
        (6, 250, [1, 2, 4, 6]),
        (1, 250, [1]),
    ],
)
def test_early_validations_double_until_the_regular_ones(steps, every, expected):
    config = TrainingConfig(steps=steps, validate_every=every, validate_early=True)
    assert list(filter(config.is_validated, range(1, steps + 1))) == expected
    assert config.n_validations == len(expected)
    regular = dataclasses.replace(config, validate_early=False)
    assert list(filter(regular.is_validated, range(1, steps + 1))) == [
        step for step in expected if step % every == 0 or step == steps
    ]
    assert regular.n_validations == sum(map(regular.is_validated, range(1, steps + 1)))
    # A run that began with one goes on with the other.
    assert config.fingerprint() == regular.fingerprint()


def test_weights_do_not_depend_on_when_they_are_measured(uninterrupted, tmp_path):
    """With dropout, the last validation alone, or early ones with a kill between: the same bits."""
    seldom = dataclasses.replace(CONFIG, validate_every=250)
    early = dataclasses.replace(seldom, validate_early=True)

    def kill(progress):
        if progress.step == 8:
            raise Killed

    with pytest.raises(Killed):
        fit(Transformer(SHAPE), TASK, early, tmp_path / "early", progress=kill)
    for name, config in (("seldom", seldom), ("early", early)):
        model = Transformer(SHAPE)
        assert fit(model, TASK, config, tmp_path / name)
        for weight, tensor in model.state_dict().items():
            assert torch.equal(tensor, uninterrupted[1][weight]), (name, weight)
    steps = [line["step"] for line in read_metrics(tmp_path / "early")]
    assert steps == [1, 2, 4, 8, 12]
    assert [line["step"] for line in read_metrics(tmp_path / "seldom")] == [12]
