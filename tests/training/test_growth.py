"""Growth keeps the function, frozen numbers keep their bits, and training in turn is plain training cut up."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from workbench.errors import CheckpointError, ConfigError, SiteError, UnsupportedError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.growth import (
    SHARED,
    Addition,
    Frozen,
    Turns,
    add_channels,
    add_heads,
    add_layers,
    channels_then,
    heads_in_turn,
    layers_in_turn,
    train_in_turn,
    train_stage,
)
from workbench.training.layouts import line_layout
from workbench.training.loop import fit
from workbench.training.regularizers.decay import WeightDecay
from workbench.training.regularizers.l1 import L1
from workbench.training.regularizers.swaps import Swaps
from workbench.training.shaping import Shaping
from workbench.training.starts import language_model_start
from workbench.training.state import STATE_FILE
from workbench.training.tasks import Repeats

SHAPE = {"d_model": 12, "n_heads": 3, "d_vocab": 11, "n_ctx": 16}
TASK = Repeats(11, 16, 8, (3, 6))
CONFIG = TrainingConfig(
    steps=6, bf16=False, validate_every=2, save_every=2, weight_decay=0.1, lr=1e-2
)
BIASED = {"attn_bias": True, "mlp_bias": True, "unembed_bias": True}
ARCHITECTURES = {
    "attention alone": {"order": "ss"},
    "unequal heads": {"order": "ss", "head_sizes": ((4, 2), (3,))},
    "shortformer": {"order": "sf", "positions": "shortformer", **BIASED},
    "LayerNorm": {"order": "sfsf", "norm": "LN", **BIASED},
    "LayerNorm without gain": {
        "order": "sfs",
        "norm": "LNPre",
        "positions": "shortformer",
        **BIASED,
    },
    "LayerNorm, shortformer": {"order": "ss", "norm": "LN", "positions": "shortformer"},
    "RMSNorm as in Llama": {
        "order": "sfsf",
        "norm": "RMS",
        "positions": "rotary",
        "n_heads": 2,
        "mlp": "swiglu",
    },
    "RMSNorm without gain": {"order": "sf", "norm": "RMSPre", "positions": "shortformer"},
    "tied": {"order": "ff", "norm": "RMS", "tied_unembedding": True, "positions": "none"},
    "parallel": {"order": "sfsf", "norm": "LN", "parallel": True, **BIASED},
    "large epsilon": {"order": "sf", "norm": "RMS", "eps": 0.3},
    "no layers": {"order": ""},
}


def rough(seed=0, **fields) -> Transformer:
    """A model in double precision whose every weight, gains and biases too, is large and random."""
    model = Transformer(TransformerConfig(**(SHAPE | fields)), name="rough", seed=seed).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            near = 1.0 if name.endswith(".w") else 0.0
            weight.copy_(near + 0.5 * torch.randn(weight.shape, dtype=weight.dtype))
        for block in model.blocks:
            if block.attn is not None and not block.attn.one_size:
                for head, size in enumerate(block.attn.head_sizes):
                    for weight in (block.attn.W_Q, block.attn.W_K, block.attn.W_V):
                        weight[head, :, size:] = 0
                    block.attn.W_O[head, size:] = 0
    return model.eval()


def tokens(seed=0):
    return torch.randint(0, 11, (4, 16), generator=torch.Generator().manual_seed(seed))


def small(seed=0, **fields) -> Transformer:
    shape = SHAPE | {"order": "s", "positions": "shortformer", "unembed_bias": True} | fields
    model = Transformer(TransformerConfig(**shape), name="small", seed=seed)
    language_model_start(model, seed)
    return model


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("fields", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_more_channels_leave_every_logit_as_it_is(fields, k):
    model = rough(**fields)
    before = model(tokens())
    grown = add_channels(model, k, seed=3)
    assert grown.model.cfg.d_model == 12 + k
    assert_close(grown.model(tokens()), before, rtol=1e-9, atol=1e-9)
    assert_close(grown.model.train()(tokens()), before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["attention alone", "shortformer", "no layers"])
def test_channels_that_nobody_reads_leave_every_logit_as_it_is(name):
    model = rough(**ARCHITECTURES[name])
    grown = add_channels(model, 5, entry="unread")
    assert_close(grown.model(tokens()), model(tokens()), rtol=1e-9, atol=1e-9)
    assert grown.model.W_E[:, 12:].abs().min() > 0


@pytest.mark.parametrize("fields", [{"order": "ss"}, {"order": "sf", "norm": "LN"}])
def test_the_bundled_precision_keeps_logits_to_a_millionth(fields):
    model = rough(**fields).float()
    for grown in (add_channels(model, 4), add_heads(model, 0), add_layers(model, "s")):
        before = model(tokens())
        assert (grown.model(tokens()) - before).abs().max() < 1e-6 * before.abs().max()


@pytest.mark.parametrize(
    "fields",
    [
        ARCHITECTURES["unequal heads"],
        ARCHITECTURES["LayerNorm"],
        {"order": "s", "norm_position": "post"},
    ],
)
def test_more_heads_leave_every_logit_as_it_is(fields):
    if "norm_position" in fields:
        fields = fields | {"norm": "Ada"}
    model = rough(**fields)
    grown = add_heads(model, 0, 2)
    assert grown.model.n_heads_in(0) == model.n_heads_in(0) + 2
    assert_close(grown.model(tokens()), model(tokens()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ["s", "f", "sf", "fs"])
@pytest.mark.parametrize(
    "name", ["unequal heads", "LayerNorm", "tied", "no layers", "RMSNorm as in Llama"]
)
def test_more_layers_leave_every_logit_bit_for_bit(name, order):
    model = rough(**ARCHITECTURES[name])
    grown = add_layers(model, order)
    assert grown.model.cfg.order == model.cfg.order + order
    assert torch.equal(grown.model(tokens()), model(tokens()))


GROWTHS = {
    "channels": lambda model: add_channels(model, 3),
    "unread": lambda model: add_channels(model, 3, entry="unread"),
    "heads": lambda model: add_heads(model, 0),
    "layers": lambda model: add_layers(model, "sf"),
}


@pytest.mark.parametrize("growth", GROWTHS.values(), ids=GROWTHS)
def test_what_is_new_moves_and_all_that_was_is_marked_old(growth):
    model = rough(order="sf", mlp_bias=True)
    grown = growth(model)
    assert sum(int(mask.sum()) for mask in grown.old.values()) == model.cfg.n_params
    frozen = Frozen.of(grown.model, grown.old)
    with frozen.held(grown.model):
        TASK.batch(0, 0).loss(grown.model(TASK.batch(0, 0).tokens)).backward()
    moved = 0
    for name, weight in grown.model.named_parameters():
        if name in grown.old:
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            assert not gradient[grown.old[name]].any(), name
        moved += 0 if weight.grad is None else int((weight.grad != 0).sum())
    assert moved > 0


def test_a_gradient_where_nothing_is_frozen_is_the_plain_one():
    grown = add_channels(rough(order="s"), 3)
    batch = TASK.batch(0, 0)
    batch.loss(grown.model(batch.tokens)).backward()
    plain = {name: weight.grad.clone() for name, weight in grown.model.named_parameters()}
    grown.model.zero_grad()
    with Frozen.of(grown.model, grown.old).held(grown.model):
        batch.loss(grown.model(batch.tokens)).backward()
    for name, weight in grown.model.named_parameters():
        assert torch.equal(weight.grad, plain[name].masked_fill(grown.old[name], 0))
    grown.model.zero_grad()
    batch.loss(grown.model(batch.tokens)).backward()
    assert all(torch.equal(w.grad, plain[n]) for n, w in grown.model.named_parameters())


@pytest.mark.parametrize("muon_lr", [None, 0.02])
@pytest.mark.parametrize("growth", GROWTHS.values(), ids=GROWTHS)
def test_frozen_numbers_keep_their_bits_under_decay_and_penalties(tmp_path, growth, muon_lr):
    grown = growth(small())
    frozen = Frozen.of(grown.model, grown.old, free=("unembed.b_U",))
    before = bits(grown.model)
    decay = WeightDecay(strength=0.1, rates={"*.W_*": 1.0})
    shaping = frozen.added_to(Shaping(decay=decay, penalties={"decay": decay}))
    config = replace(CONFIG, muon_lr=muon_lr)
    assert train_stage(grown.model, TASK, config, tmp_path, penalties=shaping)
    after = bits(grown.model)
    for name, mask in frozen.masks.items():
        assert torch.equal(after[name][mask], before[name][mask]), name
    assert not torch.equal(after["unembed.b_U"], before["unembed.b_U"])
    assert any(not torch.equal(after[name], before[name]) for name in frozen.masks) or (
        len(frozen.masks) < len(after) - 1
    )
    assert all(weight.requires_grad for weight in grown.model.parameters())


def turns(**changed):
    additions = heads_in_turn((2, 1), start=language_model_start, seed=5)
    return Turns(additions=additions, free=SHARED, **changed)


def one_head(seed=0):
    return small(seed, n_heads=1, d_head=4)


def test_one_head_in_turn_is_plain_training(tmp_path):
    plain = one_head()
    fit(plain, TASK, CONFIG, tmp_path / "plain")
    greedy = train_in_turn(
        one_head(), TASK, CONFIG, tmp_path / "greedy", Turns(additions=heads_in_turn((1,)))
    )
    assert_same_bits(bits(greedy), bits(plain))


def test_heads_come_in_their_order_and_earlier_ones_stay(tmp_path):
    model = train_in_turn(one_head(), TASK, CONFIG, tmp_path, turns())
    assert model.cfg.head_sizes == ((4, 4), (4,))
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == ["0-start", "1-head-0.1", "2-head-1.0"]
    first, *_ = stages = [
        train_in_turn(
            one_head(), TASK, CONFIG, tmp_path, replace(turns(), additions=turns().additions[:n])
        )
        for n in range(3)
    ]
    for weight in ("W_Q", "W_K", "W_V", "W_O"):
        trained = getattr(first.blocks[0].attn, weight)[0]
        assert all(torch.equal(getattr(m.blocks[0].attn, weight)[0], trained) for m in stages)
    assert not torch.equal(stages[0].W_E, stages[2].W_E)


def test_a_stage_starts_with_the_loss_where_the_last_ended(tmp_path):
    told = {}
    for n in (0, 1):
        given = replace(turns(), additions=turns().additions[:n])
        model = train_in_turn(one_head(), TASK, CONFIG, tmp_path, given)
        told[n] = TASK.measure(model)["loss"]
    again = train_in_turn(one_head(), TASK, CONFIG, tmp_path, replace(turns(), additions=()))
    assert TASK.measure(add_heads(again, 0).model)["loss"] == pytest.approx(told[0], rel=1e-6)


def test_without_freezing_all_is_trained_on(tmp_path):
    additions = (channels_then(3, 4, seed=1),)
    given = Turns(additions=additions, freeze=False)
    model = train_in_turn(small(), TASK, CONFIG, tmp_path, given)
    start = train_in_turn(small(), TASK, CONFIG, tmp_path, Turns(additions=()))
    assert model.cfg.d_model == 15
    assert not torch.equal(model.blocks[0].attn.W_V[:, :12], start.blocks[0].attn.W_V)


def test_layers_in_turn_leave_the_first_as_it_was(tmp_path):
    given = Turns(additions=layers_in_turn(("s", "f"), start=language_model_start))
    model = train_in_turn(small(), TASK, CONFIG, tmp_path, given)
    start = train_in_turn(small(), TASK, CONFIG, tmp_path, Turns(additions=()))
    assert model.cfg.order == "ssf"
    kept = {name: tensor for name, tensor in bits(model).items() if name in bits(start)}
    assert_same_bits(kept, bits(start))
    assert model.blocks[1].mlp.W_out.any() and model.blocks[1].attn.W_O.any()


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 4, 5, 7])
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path, at):
    whole = train_in_turn(one_head(), TASK, CONFIG, tmp_path / "whole", turns())
    seen = itertools.count()

    def kill(progress):
        if next(seen) == at:
            raise Killed

    with pytest.raises(Killed):
        train_in_turn(one_head(), TASK, CONFIG, tmp_path / "cut", turns(), progress=kill)
    resumed = train_in_turn(one_head(), TASK, CONFIG, tmp_path / "cut", turns())
    assert_same_bits(bits(resumed), bits(whole))


def test_a_run_that_is_stopped_can_be_gone_on_with(tmp_path):
    given, stopped = turns(), []

    def stop(progress):
        stopped.append(progress.step)
        return len(stopped) < 5

    assert train_in_turn(one_head(), TASK, CONFIG, tmp_path, given, progress=stop) is None
    assert (tmp_path / "1-head-0.1" / STATE_FILE).is_file()
    assert train_in_turn(one_head(), TASK, CONFIG, tmp_path, given) is not None


@pytest.mark.parametrize(
    "other", [{"config": replace(CONFIG, lr=1e-3)}, {"seed": 1}, {"free": ()}, {"penalised": True}]
)
def test_the_stages_of_another_run_are_refused(tmp_path, other):
    train_in_turn(one_head(), TASK, CONFIG, tmp_path, turns())
    given = turns()
    if "free" in other:
        given = replace(given, free=())
    if "penalised" in other:
        given = replace(given, penalties=lambda model: [L1(strength=1e-3)])
    with pytest.raises(CheckpointError, match="another run"):
        train_in_turn(
            one_head(other.get("seed", 0)), TASK, other.get("config", CONFIG), tmp_path, given
        )


def test_a_folder_that_holds_a_plain_run_or_a_broken_one_is_refused(tmp_path):
    fit(one_head(), TASK, CONFIG, tmp_path / "plain")
    with pytest.raises(CheckpointError, match="no stage"):
        train_stage(one_head(), TASK, CONFIG, tmp_path / "plain")
    train_stage(one_head(), TASK, CONFIG, tmp_path / "stage")
    (tmp_path / "stage" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        train_stage(one_head(), TASK, CONFIG, tmp_path / "stage")
    (tmp_path / "stage" / "stage.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="another run"):
        train_stage(one_head(), TASK, CONFIG, tmp_path / "stage")


REFUSED = {
    "not linear": {"norm": "Ada"},
    "norm_position 'post'": {"norm": "LN", "norm_position": "post"},
    "sinusoids": {"positions": "sinusoidal"},
    "tied": {"norm": "LN", "tied_unembedding": True},
    "never get a gradient": {"order": "", "tied_unembedding": True},
}


@pytest.mark.parametrize("words", REFUSED)
def test_channels_that_cannot_come_in_unnoticed_are_refused(words):
    with pytest.raises(UnsupportedError, match=words):
        add_channels(rough(**({"order": "s"} | REFUSED[words])), 2)


def test_other_growth_that_cannot_be_meant_is_refused():
    model = rough(order="fs", n_heads=2, n_kv_heads=1, norm="RMS")
    with pytest.raises(UnsupportedError, match="in 'empty'"):
        add_channels(model, 2, entry="unread")
    with pytest.raises(UnsupportedError, match="n_kv_heads 1"):
        add_heads(model, 1)
    for layer in (0, -1, 2):
        with pytest.raises(SiteError, match="no attention in layer"):
            add_heads(model, layer)
    for n in (0, -1):
        with pytest.raises(UnsupportedError, match="must be new"):
            add_channels(model, n)
    with pytest.raises(UnsupportedError, match="'post'"):
        add_layers(rough(order="s", norm="RMS", norm_position="post"))
    with pytest.raises(ConfigError, match="order"):
        add_layers(model, "x")
    with pytest.raises(UnsupportedError, match="must be new"):
        add_layers(model, "")


def test_what_cannot_be_frozen_is_refused():
    model = small()
    whole = {name: torch.ones_like(w, dtype=torch.bool) for name, w in model.named_parameters()}
    with pytest.raises(ConfigError, match="leave something to train"):
        Frozen.of(model, whole)
    with pytest.raises(ConfigError, match="no parameter 'W'"):
        Frozen.of(model, {"W": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ConfigError, match=r"mask of embed\.W_E"):
        Frozen.of(model, {"embed.W_E": torch.ones(11, 12)})
    with pytest.raises(ConfigError, match="no parameter of small is called 'mlp"):
        Frozen.of(model, whole, free=("mlp.*",))
    frozen = Frozen.of(model, whole, free=("unembed.*",))
    assert frozen.n_frozen == model.cfg.n_params - 12 * 11 - 11
    with pytest.raises(UnsupportedError, match="swaps"):
        frozen.added_to(Shaping(swaps=Swaps(layout=line_layout(model), every=3)))


def test_additions_need_names_and_layers_need_heads():
    same = Addition("again", lambda model: add_heads(model, 0))
    with pytest.raises(ConfigError, match="name of its own"):
        Turns(additions=(same, same))
    for heads in ((), (2, 0)):
        with pytest.raises(ConfigError, match="number of heads"):
            heads_in_turn(heads)


def test_a_grown_norm_sees_what_the_old_one_saw():
    """By hand: an RMSNorm over C numbers and k zeros, its epsilon and gain as growth sets them."""
    model = rough(order="s", norm="RMS", eps=0.1)
    grown = add_channels(model, 4).model
    x = np.random.default_rng(0).normal(size=12)
    gain = model.ln_final.w.detach().numpy()
    slow = x / np.sqrt((x**2).mean() + 0.1) * gain
    found = grown.ln_final(torch.from_numpy(np.concatenate([x, np.zeros(4)])))
    np.testing.assert_allclose(found.detach().numpy()[:12], slow, rtol=1e-12)
