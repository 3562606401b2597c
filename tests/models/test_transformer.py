"""Our transformer, over a table of architectures: an oracle, and the laws that every analysis relies on."""

import copy

import pytest
import torch
from slow_transformer import slow_logits
from tiny import tiny_hf
from torch.testing import assert_close

from workbench.errors import PromptError, SiteError
from workbench.models.config import TransformerConfig
from workbench.models.protocol import Model
from workbench.models.transformer import Transformer
from workbench.sites import KINDS, Site, expand

CASES = {
    "attention only": {"order": "ss"},
    "mlp only": {"order": "ff", "norm": "LN"},
    "standard": {
        "order": "sfsf",
        "norm": "LN",
        "attn_bias": True,
        "mlp_bias": True,
        "unembed_bias": True,
    },
    "sandwich": {"order": "ssff", "norm": "LN"},
    "mlp first": {"order": "fsf", "norm": "RMS", "mlp_bias": True},
    "macaron": {"order": "fsffsf", "norm": "LN", "half_step_mlp": True},
    "parallel": {"order": "sfsf", "norm": "LN", "parallel": True, "positions": "rotary"},
    "post-norm": {"order": "sfsf", "norm": "LN", "norm_position": "post", "attn_bias": True},
    "post-norm, ada": {"order": "sfs", "norm": "Ada", "norm_position": "post"},
    "llama": {
        "order": "sfsf",
        "norm": "RMS",
        "positions": "rotary",
        "mlp": "swiglu",
        "n_kv_heads": 2,
    },
    "one kv head": {"order": "ss", "n_kv_heads": 1, "positions": "rotary", "rotary_base": 50.0},
    "no gain, LN": {"order": "sfsf", "norm": "LNPre", "positions": "shortformer"},
    "no gain, RMS": {"order": "sfsf", "norm": "RMSPre", "positions": "sinusoidal"},
    "ada": {"order": "sfsf", "norm": "Ada", "positions": "none"},
    "unequal heads": {
        "order": "sfs",
        "head_sizes": ((4, 12), (20,)),
        "attn_bias": True,
        "norm": "LN",
    },
    "wide heads": {"order": "ss", "d_head": 24, "positions": "rotary"},
    "tied": {"order": "sf", "tied_unembedding": True, "unembed_bias": True},
    "few outputs": {"order": "sf", "d_vocab_out": 5},
    "sees all": {"order": "sfsf", "norm": "LN", "causal": False},
    "odd width": {
        "order": "sf",
        "d_model": 15,
        "n_heads": 3,
        "positions": "sinusoidal",
        "norm": "LN",
    },
    "nothing at all": {"order": ""},
    **{
        f"mlp {act}": {"order": "sf", "mlp": act, "norm": "LN"}
        for act in ("relu", "gelu_new", "silu")
    },
    **{
        f"mlp {gate}": {"order": "sf", "mlp": gate}
        for gate in ("glu", "bilinear", "reglu", "geglu")
    },
}
PRE = [name for name, case in CASES.items() if case.get("norm_position") != "post"]
ATTENDS = [name for name, case in CASES.items() if "s" in case["order"]]
TOKENS = torch.randint(0, 18, (2, 9), generator=torch.Generator().manual_seed(6))
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def model_of(build):
    def make(name, seed=0):
        model = build(seed=seed, scale=2.0, **CASES[name])
        with torch.no_grad():  # gains of one and biases of zero would hide a mistake
            for key, weight in model.named_parameters():
                if key.rsplit(".", 1)[-1] in (
                    "w",
                    "b",
                    "b_Q",
                    "b_K",
                    "b_V",
                    "b_O",
                    "b_in",
                    "b_out",
                    "b_U",
                ):
                    weight.add_(
                        0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(9))
                    )
            zero_padding(model)
        return model

    return make


def zero_padding(model):
    for block, shape in zip(model.blocks, model.cfg.blocks, strict=True):
        for head, size in enumerate(shape.head_sizes):
            for name in ("b_Q", "b_K", "b_V"):
                getattr(block.attn, name).data[head // block.attn.group, size:] = 0


def cached(model, tokens=TOKENS, mask=None):
    with torch.no_grad():
        return model.run_with_cache(tokens, attention_mask=mask)


@pytest.mark.parametrize("name", CASES)
def test_matches_the_slow_definition(model_of, name):
    model = model_of(name)
    with torch.no_grad():
        assert_close(model(TOKENS).double(), slow_logits(model, TOKENS), **CLOSE)


@pytest.mark.parametrize("name", CASES)
def test_training_mode_computes_the_same(model_of, name):
    model = model_of(name)
    with torch.no_grad():
        assert_close(model.train()(TOKENS).double(), slow_logits(model, TOKENS), **CLOSE)


@pytest.mark.parametrize("name", CASES)
def test_a_padded_batch_equals_its_rows_one_by_one(model_of, name):
    model = model_of(
        name
    ).double()  # in float32, rounding reaches 7e-5 where attention is this uneven
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 5:] = 0
    with torch.no_grad():
        found = model(TOKENS, attention_mask=mask)
    for row, expected in enumerate(slow_logits(model, TOKENS, mask)):
        assert_close(found[row, : len(expected)], expected, **CLOSE)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", CASES)
def test_satisfies_the_protocol_and_has_the_sites_it_should(model_of, name):
    model = model_of(name)
    assert isinstance(model, Model)
    logits, cache = cached(model)
    assert logits.shape == (2, 9, model.cfg.d_out)
    for site in expand(KINDS, model.cfg.n_layers):
        if site.hook in model.hook_dict:
            activation = cache[model.site_hook(site)]
            axes = dict(zip(site.axes, activation.shape, strict=True))
            assert axes["batch"] == 2
            if "head" in axes:
                assert axes["head"] == model.n_heads_in(site.layer)
        else:
            with pytest.raises(SiteError, match="has no"):
                model.site_hook(site)


@pytest.mark.parametrize("name", PRE)
def test_the_parts_of_the_stream_sum_to_the_whole(model_of, name):
    model = model_of(name)
    _, cache = cached(model)
    parts = cache["hook_embed"].clone()
    if "hook_pos_embed" in model.hook_dict and model.cfg.positions != "shortformer":
        parts += cache["hook_pos_embed"]
    for layer in range(model.cfg.n_layers):
        at = f"blocks.{layer}.hook_"
        assert_close(cache[at + "resid_pre"], parts, **CLOSE)
        for part in ("attn_out", "resid_mid", "mlp_out"):
            if at + part in model.hook_dict and part == "resid_mid":
                assert_close(cache[at + part], parts, **CLOSE)
            elif at + part in model.hook_dict:
                parts += cache[at + part]
        assert_close(cache[at + "resid_post"], parts, **CLOSE)


@pytest.mark.parametrize("name", ATTENDS)
def test_patterns_are_the_softmax_of_the_scores_and_sum_to_one(model_of, name):
    model = model_of(name)
    _, cache = cached(model)
    for layer in range(model.cfg.n_layers):
        if model.n_heads_in(layer):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
            assert_close(pattern, cache[f"blocks.{layer}.attn.hook_attn_scores"].softmax(-1))
            assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
            assert (pattern.triu(1).abs().max() == 0) == model.cfg.causal


@pytest.mark.parametrize("name", CASES)
def test_later_tokens_cannot_change_earlier_logits(model_of, name):
    model = model_of(name)
    changed = TOKENS.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 18
    with torch.no_grad():
        difference = (model(TOKENS) - model(changed)).abs()
    if model.cfg.causal:
        assert difference[:, :6].max() < 1e-6
    else:
        assert difference[:, :6].max() > 1e-3
    assert difference[:, 6:].max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_every_weight_receives_a_gradient(model_of, name):
    model = model_of(name)
    model(TOKENS).pow(2).mean().backward()
    for key, weight in model.named_parameters():
        assert weight.grad is not None, key
        assert torch.isfinite(weight.grad).all(), key
        # Softmax does not see what is equal for all keys; a bilinear unit has no such direction.
        if not key.endswith("b_K") or model.cfg.positions == "rotary":
            assert weight.grad.abs().max() > 0, key


def test_the_padding_of_unequal_heads_stays_zero_in_training(model_of):
    model = model_of("unequal heads").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        model(TOKENS).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    attn = model.blocks[0].attn
    assert attn.W_Q.shape == (2, 32, 12)
    for weight in (attn.W_Q, attn.W_K, attn.W_V):
        assert weight[0, :, 4:].abs().max() == 0
        assert weight[0, :, :4].abs().max() > 0
    assert attn.W_O[0, 4:].abs().max() == 0


def test_rotary_scores_depend_only_on_the_offset(build):
    model = build(order="s", positions="rotary")
    _, cache = cached(model, torch.full((1, 12), 3))
    scores = cache["blocks.0.attn.hook_attn_scores"][0]
    for offset in range(12):
        diagonal = scores.diagonal(-offset, -2, -1)
        assert_close(diagonal, diagonal[:, :1].expand_as(diagonal), **CLOSE)
    assert scores[:, 11, :12].std(-1).min() > 1e-3


def test_grouped_heads_equal_single_heads_with_repeated_keys_and_values(build):
    shape = {"order": "sfsf", "positions": "rotary", "attn_bias": True, "norm": "RMS"}
    grouped, single = build(n_kv_heads=2, **shape), build(**shape)
    state = grouped.state_dict()
    for key in state:
        if key.endswith((".W_K", ".W_V", ".b_K", ".b_V")):
            state[key] = state[key].repeat_interleave(2, dim=0)
    single.load_state_dict(state)
    with torch.no_grad():
        assert_close(grouped(TOKENS), single(TOKENS), **CLOSE)


def test_shortformer_positions_never_enter_the_stream(build):
    model = build(order="ss", positions="shortformer")
    _, cache = cached(model)
    moved = model.embed.W_E[TOKENS]
    assert_close(cache["blocks.0.hook_resid_pre"], moved)
    assert_close(
        cache["blocks.0.attn.hook_v"], torch.einsum("bpm,hmd->bphd", moved, model.W_V[0]), **CLOSE
    )


def test_equals_a_llama_of_the_transformers_library():
    theirs = tiny_hf("llama")
    state = theirs.state_dict()
    config = TransformerConfig(
        order="sfsf",
        d_model=32,
        n_heads=4,
        n_kv_heads=2,
        d_vocab=60,
        n_ctx=64,
        d_mlp=48,
        mlp="swiglu",
        norm="RMS",
        eps=theirs.config.rms_norm_eps,
        positions="rotary",
    )
    ours = {
        "embed.W_E": state["model.embed_tokens.weight"],
        "unembed.W_U": state["lm_head.weight"].T,
    }
    ours["ln_final.w"] = state["model.norm.weight"]
    for layer in range(2):
        to, at = f"blocks.{layer}.", f"model.layers.{layer}."
        ours[to + "ln1.w"] = state[at + "input_layernorm.weight"]
        ours[to + "ln2.w"] = state[at + "post_attention_layernorm.weight"]
        for letter, n in (("q", 4), ("k", 2), ("v", 2)):
            heads = state[f"{at}self_attn.{letter}_proj.weight"].view(n, 8, 32).mT
            ours[f"{to}attn.W_{letter.upper()}"] = heads
        ours[to + "attn.W_O"] = state[at + "self_attn.o_proj.weight"].T.reshape(4, 8, 32)
        for name, part in (("W_in", "up"), ("W_gate", "gate"), ("W_out", "down")):
            ours[f"{to}mlp.{name}"] = state[f"{at}mlp.{part}_proj.weight"].T
    model = Transformer(config)
    model.load_state_dict(ours)
    with torch.no_grad():
        assert_close(model(TOKENS), theirs(TOKENS).logits, **CLOSE)


def test_the_same_seed_draws_the_same_weights_and_leaves_torch_alone():
    config = TransformerConfig(order="sf", d_model=16, n_heads=2, d_vocab=18, n_ctx=8)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (Transformer(config, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["embed.W_E"], other["embed.W_E"])


@pytest.mark.parametrize("name", CASES)
def test_the_config_counts_every_trained_number(name):
    config = TransformerConfig(
        **{"d_model": 32, "n_heads": 4, "d_vocab": 18, "n_ctx": 32, **CASES[name]}
    )
    assert config.n_params == sum(p.numel() for p in Transformer(config).parameters())


def test_hooks_edit_and_leave(model_of):
    model = model_of("standard")
    with torch.no_grad():
        before = model(TOKENS)
        with model.hooks([("blocks.0.attn.hook_z", lambda z, hook: z * 0)]):
            assert (model(TOKENS) - before).abs().max() > 1e-3
        assert_close(model(TOKENS), before, rtol=0, atol=0)
    with pytest.raises(SiteError), model.hooks([("blocks.9.hook_resid_pre", print)]):
        pass
    with pytest.raises(SiteError):
        model.run_with_cache(TOKENS, names_filter="blocks.0.attn.hook_zz")


def test_a_copy_shares_neither_weights_nor_lock(model_of):
    model = model_of("standard")
    other = copy.deepcopy(model)
    other.embed.W_E.data.zero_()
    assert model.embed.W_E.abs().max() > 0
    with model.lock, other.lock:
        pass
    assert model.lock is not other.lock


def test_stacked_weights_are_there_where_layers_are_alike(model_of):
    assert model_of("standard").W_Q.shape == (2, 4, 32, 8)
    assert model_of("llama").W_K.shape == (2, 2, 32, 8)
    for name, weight in (("unequal heads", "W_Q"), ("mlp first", "W_O"), ("llama", "W_pos")):
        with pytest.raises(AttributeError, match=r"layers differ|not every layer|no W_pos"):
            getattr(model_of(name), weight)
    with pytest.raises(AttributeError):
        _ = model_of("standard").nonsense


def test_prompts_become_tokens_or_a_named_error(model):
    assert model.to_tokens("abc").tolist() == [[0, 2, 3, 4]]
    with torch.no_grad():
        assert_close(model("abc"), model(torch.tensor([[0, 2, 3, 4]])))
    with pytest.raises(PromptError, match="33 tokens; this model reads at most 32"):
        model.to_tokens("a" * 32)
    bare = Transformer(TransformerConfig(order="s", d_model=8, d_vocab=5, n_ctx=4))
    with pytest.raises(PromptError, match="no tokenizer"):
        bare.to_tokens("abc")


def test_half_and_double_precision_run(model_of):
    for name in ("standard", "llama", "unequal heads"):
        for dtype in (torch.float64, torch.bfloat16):
            model = model_of(name).to(dtype)
            with torch.no_grad():
                assert model(TOKENS).dtype == dtype


def test_sites_are_named_by_transformerlens(model_of):
    assert Site("pattern", 1).hook in model_of("standard").hook_dict
