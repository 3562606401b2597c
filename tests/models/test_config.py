"""The transformer's config: valid values survive a JSON round trip, others are refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.models.config import BlockShape, TransformerConfig

SMALL = {"order": "sfsf", "d_model": 16, "n_heads": 4, "d_vocab": 20, "n_ctx": 10}


def config(**changes):
    return TransformerConfig(**{**SMALL, **changes})


@st.composite
def configs(draw):
    """Any config that can be meant, small."""
    heads, size = draw(st.integers(1, 4)), draw(st.sampled_from([2, 4, 6]))
    order = draw(st.text("sf", max_size=6))
    fields = {
        "order": order,
        "d_model": heads * size,
        "n_heads": heads,
        "d_vocab": draw(st.integers(1, 50)),
        "n_ctx": draw(st.integers(1, 50)),
        "d_mlp": draw(st.none() | st.integers(1, 30)),
        "n_kv_heads": draw(st.none() | st.just(1) | st.just(heads)),
        "mlp": draw(st.sampled_from(["relu", "gelu_new", "swiglu", "bilinear"])),
        "norm": draw(st.sampled_from(["none", "LN", "LNPre", "RMS", "RMSPre", "Ada"])),
        "positions": draw(
            st.sampled_from(["none", "learned", "shortformer", "sinusoidal", "rotary"])
        ),
        "rotary_base": draw(st.floats(1, 1e6)),
        "eps": draw(st.floats(0, 1)),
        "dropout": draw(st.floats(0, 0.99)),
    }
    flags = ("causal", "attn_bias", "mlp_bias", "unembed_bias", "tied_unembedding", "half_step_mlp")
    fields |= {flag: draw(st.booleans()) for flag in flags}
    if draw(st.booleans()) and fields["positions"] != "rotary" and fields["n_kv_heads"] is None:
        row = st.lists(st.integers(1, 8), min_size=1, max_size=4).map(tuple)
        n = order.count("s")
        fields["head_sizes"] = tuple(draw(st.lists(row, min_size=n, max_size=n)))
    return TransformerConfig(**fields)


@given(configs())
def test_survives_a_json_round_trip(given_config):
    again = TransformerConfig.from_json(given_config.to_json())
    assert again == given_config
    assert again.blocks == given_config.blocks
    assert again.n_params == given_config.n_params


@given(configs())
def test_blocks_spell_the_order_again(given_config):
    spelled = "".join("s" * bool(b.head_sizes) + "f" * b.has_mlp for b in given_config.blocks)
    assert spelled == given_config.order


@given(
    name=st.sampled_from(
        [*SMALL, "norm", "mlp", "causal", "eps", "head_sizes", "n_kv_heads", "d_mlp"]
    ),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        ),
        max_leaves=6,
    ),
)
def test_any_json_value_in_any_field_is_meant_or_refused(name, value):
    try:
        found = TransformerConfig.from_json(json.dumps({**SMALL, name: value}))
    except ConfigError:
        return
    assert TransformerConfig.from_json(found.to_json()) == found


@given(st.text(max_size=40))
def test_any_text_is_a_config_or_refused(text):
    with pytest.raises(ConfigError):
        TransformerConfig.from_json(text)


@pytest.mark.parametrize(
    ("order", "blocks"),
    [
        ("", []),
        ("sfsf", ["sf", "sf"]),
        ("ss", ["s", "s"]),
        ("ssff", ["s", "sf", "f"]),
        ("fsffsf", ["f", "sf", "f", "sf"]),
    ],
)
def test_a_block_holds_one_attention_and_the_mlp_after_it(order, blocks):
    sizes = (4, 4, 4, 4)
    expected = tuple(BlockShape(sizes if "s" in b else (), "f" in b) for b in blocks)
    assert config(order=order).blocks == expected
    assert config(order=order).n_layers == len(blocks)


def test_speaks_the_words_of_transformerlens():
    usual = config(norm="RMS", n_kv_heads=2)
    assert (usual.normalization_type, usual.final_rms, usual.n_key_value_heads) == ("RMS", True, 2)
    assert config().normalization_type is None
    assert config(order="ss").attn_only
    assert not usual.attn_only
    assert (config().d_out, config(d_vocab_out=3).d_out) == (20, 3)
    assert (config().d_mlp_or_default, config(d_mlp=7).d_mlp_or_default) == (64, 7)


REFUSED = [
    ({"d_model": 0}, "d_model must be a whole number from 1"),
    ({"d_model": 15}, "not a multiple of n_heads"),
    ({"d_model": 16.0}, "d_model must be a whole number"),
    ({"n_heads": True}, "n_heads must be a whole number"),
    ({"n_ctx": 10**9}, "n_ctx must be"),
    ({"d_vocab": "20"}, "d_vocab must be"),
    ({"d_head": -1}, "d_head must be"),
    ({"order": "sax"}, "'s' .self-attention. or 'f'"),
    ({"order": "s" * 513}, "at most 512 letters"),
    ({"order": ["s"]}, "order must be"),
    ({"norm": "BN"}, "norm must be one of none, LN"),
    ({"mlp": "mish"}, "mlp must be one of relu"),
    ({"positions": "alibi"}, "positions must be one of"),
    ({"norm_position": "middle"}, "norm_position must be one of pre, post"),
    ({"causal": 1}, "causal must be true or false"),
    ({"eps": float("nan")}, "eps must be a number from"),
    ({"eps": -1e-5}, "eps must be a number from"),
    ({"rotary_base": 0.5}, "rotary_base must be a number from"),
    ({"dropout": 1.0}, "dropout must be a number from"),
    ({"dropout": True}, "dropout must be a number from"),
    ({"n_kv_heads": 3}, "n_kv_heads 3 must divide"),
    ({"head_sizes": ((4,),)}, "one tuple of positive sizes for each of the 2"),
    ({"head_sizes": ((4,), (0,))}, "positive sizes"),
    ({"head_sizes": ((4, 8), (4,)), "positions": "rotary"}, "heads of unequal size"),
    ({"head_sizes": ((4, 8), (4,)), "n_kv_heads": 1}, "heads of unequal size"),
    ({"d_head": 3, "positions": "rotary"}, "must be even"),
    ({"order": "ssf", "parallel": True}, "parallel blocks hold attention and MLP each"),
    ({"parallel": True, "norm": "LN", "norm_position": "post"}, "not defined"),
    ({"norm_position": "post"}, "needs a norm"),
    ({"tied_unembedding": True, "d_vocab_out": 3}, "tied unembedding"),
    ({"d_model": 9_000_000, "d_vocab": 9_000_000}, "the limit is 2,000,000,000"),
    ({"n_ctx": 9_000_000, "d_head": 64, "positions": "rotary"}, "n_ctx 9,000,000 asks for"),
    ({"n_ctx": 9_000_000, "d_model": 64, "positions": "sinusoidal"}, "n_ctx 9,000,000 asks for"),
]


@pytest.mark.parametrize(
    ("changes", "match"), REFUSED, ids=[str(changes) for changes, _ in REFUSED]
)
def test_what_cannot_be_meant_is_refused_with_its_range(changes, match):
    with pytest.raises(ConfigError, match=match):
        config(**changes)


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
def test_tables_of_positions_are_no_parameters(positions):
    """They are limited apart, and leave the number of trained parameters what it is."""
    assert config(positions=positions).n_params == config(positions="none").n_params
    assert config(positions=positions, n_ctx=100_000).n_ctx == 100_000


def test_unknown_and_missing_fields_are_named():
    with pytest.raises(ConfigError, match=r"unknown config fields: d_modell\. Known: attn_bias"):
        TransformerConfig.from_dict({**SMALL, "d_modell": 3})
    with pytest.raises(ConfigError, match="lacks d_vocab, order"):
        TransformerConfig.from_dict({"d_model": 16, "n_ctx": 3})
    with pytest.raises(ConfigError, match="must be a JSON object, not list"):
        TransformerConfig.from_json("[]")
    with pytest.raises(ConfigError, match="not JSON"):
        TransformerConfig.from_json("{'order': 's'}")
