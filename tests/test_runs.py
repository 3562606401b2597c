import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from workbench.budget import check_budget, estimate, parse_bytes
from workbench.errors import BudgetError, PromptError, SiteError
from workbench.runs import available, pack_triangles, run, unpack_triangles
from workbench.sites import Site

ARCHITECTURES = {
    "attention only, shortformer": {"order": "ss", "positions": "shortformer"},
    "LayerNorm and MLPs": {"order": "sfsf", "norm": "LN", "attn_bias": True, "mlp_bias": True},
    "Llama kind": {
        "order": "sfsf", "norm": "RMS", "positions": "rotary", "mlp": "swiglu", "n_kv_heads": 2
    },
    "bidirectional, post-norm": {
        "order": "sfsf", "norm": "LN", "norm_position": "post", "causal": False
    },
    "unequal heads": {"order": "ss", "head_sizes": ((16, 4), (8, 8, 2))},
    "sandwich": {"order": "ssff", "norm": "RMS"},
}  # fmt: skip


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def any_model(request, build):
    return build(**request.param).double()


def test_a_run_holds_what_the_full_cache_holds(any_model):
    tokens = any_model.to_tokens("abcabcad")
    logits, cache = any_model.run_with_cache(tokens)
    kinds = {Site.parse(name).kind for name in cache if name in any_model.hook_dict}
    kept = run(any_model, "abcabcad", sites=sorted(kinds))
    assert_close(kept.logits, logits)
    for name in cache:
        if Site.parse(name).kind in kinds:
            assert_close(kept[name], cache[name], rtol=0, atol=0)


def test_patterns_sum_to_one_and_causal_ones_never_look_ahead(any_model):
    kept = run(any_model, "abcabcad", sites=("pattern",))
    for layer in {site.layer for site in kept.sites}:
        pattern = kept.pattern(layer)
        assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
        ahead = pattern.triu(1)
        assert (ahead == 0).all() == any_model.cfg.causal


def test_a_batch_of_unequal_prompts_equals_one_by_one(any_model):
    prompts = ["abcabcadeb", "ab", "ponmlk"]
    sites = ("pattern", "scores", "resid_post", "q", "k", "v", "z")
    together = run(any_model, prompts, sites=sites)
    for index, prompt in enumerate(prompts):
        alone, row = run(any_model, prompt, sites=sites), together.row(index)
        assert row.str_tokens == alone.str_tokens
        assert torch.equal(row.tokens, alone.tokens)
        assert_close(row.logits, alone.logits)
        for site in alone.sites:
            assert_close(row[site], alone[site])


def test_the_estimate_is_what_is_stored_to_the_byte(any_model):
    for dtype in (None, "float16"):
        kept = run(any_model, ["abcabc", "abc"], sites=("pattern", "k", "resid_post"), dtype=dtype)
        held = estimate(any_model, *kept.tokens.shape, kept.sites, dtype)
        assert sum(held.values()) == kept.nbytes


def test_no_two_stored_sites_share_their_numbers(model):
    kept = run(model, "abcabc", sites=("resid_pre", "resid_post", "pattern", "scores"))
    pointers = [tensor.untyped_storage().data_ptr() for tensor in kept.stored.values()]
    assert len(set(pointers)) == len(pointers)
    assert torch.equal(kept["resid_pre.1"], kept["resid_post.0"])


@settings(max_examples=30, deadline=None)
@given(n_pos=st.integers(1, 12), heads=st.integers(1, 3))
def test_triangles_survive_packing(n_pos, heads):
    square = torch.rand(2, heads, n_pos, n_pos).tril()
    assert torch.equal(unpack_triangles(pack_triangles(square), n_pos, 0.0), square)


def test_token_ids_give_the_same_run_as_their_text(model):
    ids = model.to_tokens("abcab")
    by_text, by_ids, by_list = run(model, "abcab"), run(model, ids), run(model, ids[0].tolist())
    assert torch.equal(by_text.logits, by_ids.logits)
    assert torch.equal(by_text.logits, by_list.logits)


def test_reading_leaves_no_hook_behind(model):
    run(model, "abc")
    points = model.hook_dict.values()
    assert not any(point.fwd_hooks or point._forward_hooks for point in points)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "empty"),
        ("a" * 200_001, "limit is 200,000"),
        ("a" * 40, "at most 32"),
        ("abc\0", "null character at position 3"),
        ("ab\ud800", "not valid Unicode"),
        ("abZ", "no token for 'Z' at character 2"),
        (["abc", ""], "prompt 2 of 2"),
        ([[0, 99]], "no token 99: this model's ids run from 0 to 17"),
        ([[0, -1]], "no token -1"),
        ([[0, 1], [2]], "rows of one length"),
        ([], "not empty"),
        (torch.zeros(1, 3), "whole numbers"),
        (torch.zeros(1, 1, 3, dtype=torch.long), "must be"),
    ],
)
def test_a_bad_prompt_is_refused_by_what_is_wrong_with_it(model, prompt, message):
    with pytest.raises(PromptError, match=message):
        run(model, prompt)


def test_a_run_over_budget_is_refused_before_it_runs(model):
    ran = []
    with (
        model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: ran.append(1))]),
        pytest.raises(BudgetError, match=r"would keep .* the budget is 1.00 KB.*float16"),
    ):
        run(model, "abcabc", budget="1KB")
    assert not ran


@pytest.mark.parametrize("budget", ["", "-1GB", "many", "1e9GB", "5", 0, True, "9" * 99 + "GB"])
def test_a_budget_that_is_no_size_is_refused(budget):
    with pytest.raises(BudgetError, match="500MB"):
        check_budget({"logits": 1}, budget)


def test_budgets_read_as_written():
    assert parse_bytes("1.5GB") == 1_500_000_000
    assert parse_bytes("20 mb") == 20_000_000
    assert parse_bytes(123) == 123


def test_a_site_that_was_not_kept_or_does_not_exist_is_named(build):
    attention_only = build(order="ss")
    kept = run(attention_only, "abc", sites=("pattern",))
    with pytest.raises(SiteError, match=r"did not keep z\.0; it kept pattern"):
        kept["z.0"]
    with pytest.raises(SiteError, match="no mlp_out in any layer"):
        available(attention_only, ["mlp_out"])
    with pytest.raises(SiteError, match=r"no mlp_out\.0"):
        available(attention_only, ["mlp_out.0"])
    with pytest.raises(SiteError, match="from 0 to 1"):
        available(attention_only, ["pattern.7"])


def test_a_kind_that_only_some_layers_have_is_kept_where_it_is(build):
    sandwich = build(order="ssff")
    kept = run(sandwich, "abc", sites=("mlp_out",))
    assert [site.layer for site in kept.sites] == [1, 2]


def test_the_default_keeps_what_a_model_has(build):
    assert {site.kind for site in run(build(order="ss"), "ab").sites} == {
        "pattern",
        "v",
        "resid_pre",
        "resid_post",
    }
    bare = run(build(order="", positions="none"), "ab")
    assert bare.sites == () and bare.logits.shape == (1, 3, 18)


def test_a_run_prints_as_one_line_and_refuses_rows_it_lacks(model):
    kept = run(model, ["abc", "ab"])
    assert repr(kept).startswith("Run(letters, prompts of [4, 3] tokens, pattern, v, resid_pre")
    assert len(repr(kept)) < 200
    for row in (-1, 2):
        with pytest.raises(PromptError, match="from 0 to 1"):
            kept.row(row)


def test_corpus_ids_of_sixteen_bits_are_read(model):
    ids = torch.tensor([[0, 2, 3]], dtype=torch.uint16)
    assert torch.equal(run(model, ids).logits, run(model, ids.long()).logits)
