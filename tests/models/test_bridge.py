"""Laws that every public architecture must obey through the bridge, on tiny random models of each."""

import copy

import pytest
import torch
from tiny import TINY, tiny_hf
from torch.nn import functional as F
from torch.testing import assert_close

from workbench.errors import SiteError
from workbench.models import load
from workbench.models.protocol import Model
from workbench.sites import KINDS, Site, expand

NAMES = list(TINY)
PRE_NORM = [name for name in NAMES if not name.startswith("bert")]
WITH_HEAD = [name for name in NAMES if name != "bert-encoder"]
N_LAYERS, N_POS = 2, 12
TOKENS = torch.randint(0, 60, (2, N_POS), generator=torch.Generator().manual_seed(1))
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def model_of(hf_folder):
    loaded = {}

    def model(name):
        if name not in loaded:
            loaded[name] = load(str(hf_folder(name)))
        return loaded[name]

    return model


@pytest.fixture(scope="module")
def run_of(model_of):
    def run(name):
        model = model_of(name)
        with torch.no_grad():
            logits, cache = model.run_with_cache(TOKENS)
        return model, logits, cache

    return run


def normed(norm, normalized):
    """What a sublayer reads, from the site before gain and bias."""
    return normalized * norm.w + (norm.b if norm.kind == "LN" else 0)


@pytest.mark.parametrize("name", NAMES)
def test_satisfies_the_protocol_and_is_certified(model_of, name):
    model = model_of(name)
    assert isinstance(model, Model)
    assert model.certificate.max_logit_error < 1e-4 * max(1, model.certificate.max_logit)
    assert model.certificate.n_tokens == 16


@pytest.mark.parametrize("name", WITH_HEAD)
def test_logits_are_those_of_the_plain_model(model_of, name):
    plain = tiny_hf(name)
    with torch.no_grad():
        assert_close(model_of(name)(TOKENS), plain(TOKENS).logits, **CLOSE)


def test_hidden_states_of_an_encoder_are_those_of_the_plain_model(run_of):
    model, logits, cache = run_of("bert-encoder")
    with torch.no_grad():
        expected = tiny_hf("bert-encoder")(TOKENS).last_hidden_state
    assert_close(cache["blocks.1.hook_resid_post"], expected, **CLOSE)
    assert logits.shape == (2, N_POS, 0)
    assert model.W_U.shape == (32, 0)
    assert "hidden states" in model.certificate.source


@pytest.mark.parametrize("name", NAMES)
def test_every_site_is_there_or_refused_with_a_reason(run_of, name):
    model, _, cache = run_of(name)
    sizes = {"batch": 2, "pos": N_POS, "query": N_POS, "key": N_POS, "one": 1, "neuron": 48}
    sizes |= {"d_model": 32, "head": 4, "d_head": 8, "kv_head": model.cfg.n_kv_heads or 4}
    sizes["neuron"] = model.cfg.d_mlp
    for site in expand(KINDS, N_LAYERS):
        if site.kind in model.missing:
            with pytest.raises(SiteError, match="has no"):
                model.site_hook(site)
            with pytest.raises(SiteError), model.hooks([(site.hook, lambda x, hook: None)]):
                pass
        else:
            activation = cache[model.site_hook(site)]
            assert activation.shape == tuple(sizes[axis] for axis in site.axes), site


def test_the_missing_sites_are_the_ones_that_the_architecture_lacks(model_of):
    assert set(model_of("gpt2").missing) == {"mlp_pre_linear"}
    assert set(model_of("llama").missing) == {"pos_embed"}
    assert set(model_of("gpt-neox").missing) == {"pos_embed", "resid_mid", "mlp_pre_linear"}
    assert set(model_of("gpt-neox-serial").missing) == {"pos_embed", "mlp_pre_linear"}
    assert set(model_of("bert").missing) == {"mlp_pre_linear", "final_scale", "final_normalized"}
    with pytest.raises(SiteError, match="layers of llama run from 0 to 1"):
        model_of("llama").site_hook(Site("pattern", 2))


@pytest.mark.parametrize("name", PRE_NORM)
def test_the_parts_of_the_stream_sum_to_the_whole(run_of, name):
    model, _, cache = run_of(name)
    parts = cache["hook_embed"].clone()
    if "pos_embed" not in model.missing:
        parts += cache["hook_pos_embed"]
    for layer in range(N_LAYERS):
        block = f"blocks.{layer}.hook_"
        assert_close(cache[block + "resid_pre"], parts, **CLOSE)
        parts += cache[block + "attn_out"]
        if "resid_mid" not in model.missing:
            assert_close(cache[block + "resid_mid"], parts, **CLOSE)
        parts += cache[block + "mlp_out"]
        assert_close(cache[block + "resid_post"], parts, **CLOSE)


@pytest.mark.parametrize("name", ["bert", "bert-encoder"])
def test_post_norm_blocks_normalise_the_sum(run_of, name):
    model, _, cache = run_of(name)
    for layer, block in enumerate(model.blocks):
        at = f"blocks.{layer}.hook_"
        for before, added, after, norm in (
            ("resid_pre", "attn_out", "resid_mid", block.ln1),
            ("resid_mid", "mlp_out", "resid_post", block.ln2),
        ):
            total = cache[at + before] + cache[at + added]
            expected = F.layer_norm(total, (32,), norm.w, norm.b, norm.eps)
            assert_close(cache[at + after], expected, **CLOSE)
    assert_close(cache["blocks.1.hook_resid_pre"], cache["blocks.0.hook_resid_post"])


@pytest.mark.parametrize("name", NAMES)
def test_patterns_are_the_softmax_of_the_scores_and_sum_to_one(run_of, name):
    model, _, cache = run_of(name)
    for layer in range(N_LAYERS):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        assert_close(pattern, cache[f"blocks.{layer}.attn.hook_attn_scores"].softmax(-1), **CLOSE)
        assert_close(pattern.sum(-1), torch.ones(2, 4, N_POS))
        above = pattern.triu(1).abs().max()
        assert (above == 0) == model.cfg.causal


@pytest.mark.parametrize("name", NAMES)
def test_weights_reproduce_the_activations(run_of, name):
    """The embedding, q, k, v, z to attn_out, and the MLP, from the weights under their names."""
    model, _, cache = run_of(name)
    assert_close(cache["hook_embed"], model.W_E[TOKENS], **CLOSE)
    if "pos_embed" not in model.missing:
        assert_close(cache["hook_pos_embed"], model.W_pos[:N_POS].expand(2, -1, -1), **CLOSE)
    for layer, block in enumerate(model.blocks):
        at = f"blocks.{layer}."
        pre_norm = model.cfg.norm_position == "pre"
        x = cache[at + "hook_resid_pre"]
        x = normed(block.ln1, cache[at + "ln1.hook_normalized"]) if pre_norm else x
        attn = block.attn
        for letter in "QKV":
            weight, bias = getattr(attn, "W_" + letter), getattr(attn, "b_" + letter)
            expected = torch.einsum("bpm,hmd->bphd", x, weight) + bias
            assert_close(cache[f"{at}attn.hook_{letter.lower()}"], expected, **CLOSE)
        v = cache[at + "attn.hook_v"].repeat_interleave(attn.group, 2)
        z = torch.einsum("bhqk,bkhd->bqhd", cache[at + "attn.hook_pattern"], v)
        assert_close(cache[at + "attn.hook_z"], z, **CLOSE)
        written = torch.einsum("bqhd,hdm->bqm", z, attn.W_O) + attn.b_O
        written = rms(written, block.ln1_post) if block.ln1_post else written
        assert_close(cache[at + "hook_attn_out"], written, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_weights_reproduce_the_mlp(run_of, name):
    model, _, cache = run_of(name)
    act = {
        "gelu": F.gelu,
        "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
        "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
    }[model.cfg.act_fn]
    for layer, block in enumerate(model.blocks):
        at, mlp = f"blocks.{layer}.", block.mlp
        if model.cfg.norm_position == "pre":
            x = normed(block.ln2, cache[at + "ln2.hook_normalized"])
        else:
            x = cache[at + "hook_resid_mid"]
        linear = x @ mlp.W_in + mlp.b_in
        if mlp.is_gated:
            assert_close(cache[at + "mlp.hook_pre_linear"], linear, **CLOSE)
            assert_close(cache[at + "mlp.hook_pre"], x @ mlp.W_gate, **CLOSE)
            post = act(x @ mlp.W_gate) * linear
        else:
            assert_close(cache[at + "mlp.hook_pre"], linear, **CLOSE)
            post = act(linear)
        assert_close(cache[at + "mlp.hook_post"], post, **CLOSE)
        written = post @ mlp.W_out + mlp.b_out
        written = rms(written, block.ln2_post) if block.ln2_post else written
        assert_close(cache[at + "hook_mlp_out"], written, **CLOSE)


def rms(x, norm):
    return x / (x.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.w


@pytest.mark.parametrize("name", PRE_NORM)
def test_norm_sites_and_unembedding_reproduce_the_logits(run_of, name):
    model, logits, cache = run_of(name)
    for layer in range(N_LAYERS):
        for norm, read in (("ln1", "resid_pre"), ("ln2", "resid_mid")):
            if read in model.missing:
                read = "resid_pre"
            x = cache[f"blocks.{layer}.hook_{read}"]
            check_norm(model, cache, f"blocks.{layer}.{norm}", x)
    x = cache["blocks.1.hook_resid_post"]
    check_norm(model, cache, "ln_final", x)
    found = normed(model.ln_final, cache["ln_final.hook_normalized"]) @ model.W_U + model.b_U
    if cap := model.cfg.logit_soft_cap:
        found = cap * torch.tanh(found / cap)
    assert_close(found, logits, **CLOSE)


def check_norm(model, cache, at, x):
    x = x - x.mean(-1, keepdim=True) if model.cfg.norm == "LN" else x
    scale = (x.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    assert_close(cache[at + ".hook_scale"], scale, **CLOSE)
    assert_close(cache[at + ".hook_normalized"], x / scale, **CLOSE)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n.split("-")[0] not in ("gpt2", "bert", "qwen3")]
)
def test_rotary_scores_follow_from_weights_and_rates(run_of, name):
    """scores = cap(R q · R k / attn_scale); dimension i turns with i + rotary_dim / 2."""
    model, _, cache = run_of(name)
    cfg = model.cfg
    angles = torch.arange(N_POS)[:, None, None] * model.rotary_rates
    half = cfg.rotary_dim // 2
    assert model.rotary_rates.shape == (half,)

    def rotated(x):
        first, second, rest = x.split([half, half, cfg.d_head - 2 * half], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)

    q, k = rotated(cache["blocks.1.attn.hook_q"]), rotated(cache["blocks.1.attn.hook_k"])
    k = k.repeat_interleave(model.blocks[1].attn.group, 2)
    expected = torch.einsum("bqhd,bkhd->bhqk", q, k) / cfg.attn_scale
    if cap := cfg.attn_soft_cap:
        expected = cap * torch.tanh(expected / cap)
    seen = torch.ones(N_POS, N_POS, dtype=torch.bool).tril()
    scores = cache["blocks.1.attn.hook_attn_scores"]
    assert_close(scores[..., seen], expected[..., seen], **CLOSE)


@pytest.mark.parametrize("name", WITH_HEAD)
def test_an_edit_at_any_site_reaches_the_logits(run_of, name):
    model, logits, _ = run_of(name)
    noise = torch.Generator().manual_seed(2)

    def shake(activation, hook):
        return activation + 0.5 * torch.randn(activation.shape, generator=noise)

    with torch.no_grad():
        for kind in KINDS:
            if kind not in model.missing:
                site = Site(kind) if "{layer}" not in KINDS[kind].hook else Site(kind, 0)
                edited = model.run_with_hooks(TOKENS, [(site.hook, shake)])
                assert (edited - logits).abs().max() > 1e-3, f"{site} is deaf"
        assert_close(model(TOKENS), logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", WITH_HEAD)
def test_an_equal_copy_at_any_site_changes_nothing(run_of, name):
    """Also where the bridge computes a norm anew from what a hook returned."""
    model, logits, _ = run_of(name)
    copies = [(hook, lambda activation, hook: activation.clone()) for hook in model.hook_dict]
    with torch.no_grad():
        assert_close(model.run_with_hooks(TOKENS, copies), logits, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_equals_its_rows_one_by_one(model_of, name):
    model = model_of(name)
    mask = torch.ones(2, N_POS, dtype=torch.long)
    mask[1, 7:] = 0
    last = "blocks.1.hook_resid_post"
    with torch.no_grad():
        _, padded = model.run_with_cache(TOKENS, last, attention_mask=mask)
        _, alone = model.run_with_cache(TOKENS[1:, :7], last)
        _, whole = model.run_with_cache(TOKENS[:1], last)
    assert_close(padded[last][1, :7], alone[last][0], **CLOSE)
    assert_close(padded[last][0], whole[last][0], **CLOSE)


def test_hooks_leave_with_their_context_even_after_an_error(model_of):
    model = model_of("llama")
    before = model(TOKENS)
    zero = [("blocks.0.attn.hook_z", lambda z, hook: z * 0)]
    with pytest.raises(RuntimeError, match="stop"), model.hooks(zero):
        raise RuntimeError("stop")
    with model.hooks(zero):
        assert (model(TOKENS) - before).abs().max() > 1e-3
    assert_close(model(TOKENS), before, rtol=0, atol=0)
    with pytest.raises(SiteError), model.hooks([*zero, ("blocks.0.hook_nonsense", print)]):
        pass
    assert_close(model(TOKENS), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["llama", "bert", "gpt2"])
def test_a_copy_shares_neither_weights_nor_hooks_nor_lock(model_of, name):
    model = model_of(name)
    other = copy.deepcopy(model)
    with torch.no_grad():
        before = model(TOKENS)
        with other.hooks([("blocks.0.attn.hook_pattern", lambda pattern, hook: pattern * 0)]):
            assert_close(model(TOKENS), before, rtol=0, atol=0)
            assert (other(TOKENS) - before).abs().max() > 1e-3
        next(other.parameters()).zero_()
        assert_close(model(TOKENS), before, rtol=0, atol=0)
    assert other.lock is not model.lock


@pytest.mark.parametrize("name", WITH_HEAD)
def test_gradients_reach_the_activations_that_hooks_see(model_of, name):
    model, kept = model_of(name), {}
    kinds = (
        "resid_pre",
        "q",
        "k",
        "v",
        "scores",
        "pattern",
        "z",
        "attn_out",
        "mlp_post",
        "mlp_out",
    )
    hooks = [Site(kind, 0).hook for kind in kinds]

    def keep(activation, hook):
        activation.retain_grad()
        kept[len(kept)] = activation

    with model.hooks([(hook, keep) for hook in hooks]):
        model(TOKENS)[:, -1, 3].sum().backward()
    assert len(kept) == len(kinds)
    for activation in kept.values():
        assert activation.grad is not None
        assert activation.grad.abs().max() > 0
    for weight in model.parameters():
        weight.grad = None
