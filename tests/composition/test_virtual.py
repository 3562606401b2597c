import pytest
import torch
from torch.testing import assert_close

from tests.circuit_models import randomised
from workbench.composition.virtual import virtual_head, virtual_pattern
from workbench.errors import PromptError, SiteError, UnsupportedError
from workbench.rotary import rotate
from workbench.runs import run
from workbench.sites import Head
from workbench.weights import effective_weights

EARLIER, LATER = Head(0, 1), Head(1, 2)
PROMPT = "abcdabcefaab"


def moved(weights, head, pattern, stream):
    """What a head writes from a stream, position by position. Slow and obvious."""
    W = weights.head(head)
    out = torch.zeros_like(stream)
    for query in range(len(stream)):
        for key in range(len(stream)):
            out[query] += pattern[query, key] * (stream[key] @ W.W_V @ W.W_O)
    return out


@pytest.fixture(scope="module")
def norm_free(build):
    """Attention alone, no norm, no biases: logits are sums of products."""
    return build(order="ss", scale=2.0).double()


def test_a_virtual_head_writes_what_the_second_order_term_does(norm_free):
    weights, done = effective_weights(norm_free), run(norm_free, PROMPT)
    stream = weights.W_E[done.tokens[0]] + weights.W_pos[: done.tokens.shape[1]]
    first, second = done.pattern(0)[0, 1], done.pattern(1)[0, 2]
    slow = moved(weights, LATER, second, moved(weights, EARLIER, first, stream)) @ weights.W_U
    virtual = virtual_head(weights, LATER, EARLIER)
    pattern = virtual_pattern(done, LATER, EARLIER)
    assert_close(pattern @ stream @ virtual.W_V @ virtual.W_O @ weights.W_U, slow)


def test_direct_path_heads_and_virtual_heads_add_up_to_the_logits(attn_2l):
    """Of a two-layer model without norms and MLPs that is all there is: 1 + 8 + 16 terms and a bias."""
    weights = effective_weights(attn_2l, dtype="float64")
    done = run(attn_2l, "def run(self):\n    return self.run(self)")
    tokens = weights.W_E[done.tokens[0]]
    total = tokens @ weights.W_U + weights.b_U
    for head in weights.heads:
        W = weights.head(head)
        pattern = done.pattern(head.layer)[0, head.head].double()
        total = total + pattern @ tokens @ W.W_V @ W.W_O @ weights.W_U
        for earlier in (other for other in weights.heads if other.layer < head.layer):
            W = virtual_head(weights, head, earlier)
            pattern = virtual_pattern(done, head, earlier).double()
            total = total + pattern @ tokens @ W.W_V @ W.W_O @ weights.W_U
    assert_close(total, done.logits[0].double(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"order": "ss", "positions": "none"},
        {"order": "ss", "attn_bias": True},
        {"order": "ss", "positions": "rotary"},
        {"order": "ss", "positions": "shortformer"},
    ],
)
def test_virtual_queries_and_keys_add_up_to_the_scores(build, fields):
    """A later head's query and key each read tokens, positions, what every earlier head wrote, and a bias."""
    model = randomised(build, fields)
    weights, done = effective_weights(model), run(model, PROMPT, sites=["scores", "pattern"])
    n_pos = done.tokens.shape[1]
    tokens, last = weights.W_E[done.tokens[0]], weights.head(LATER)
    positions = None if weights.W_pos is None else weights.W_pos[:n_pos]
    sides = {}
    for through in ("Q", "K"):
        side = weights.attention(0).b_O @ getattr(last, f"W_{through}")
        terms = [(last, torch.eye(n_pos).double())] + [
            (virtual_head(weights, LATER, earlier, through=through), done.pattern(0)[0, index])
            for index, earlier in enumerate(weights.heads[:4])
        ]
        for held, pattern in terms:
            side = side + pattern @ tokens @ getattr(held, f"W_{through}")
            side = side + getattr(held, f"b_{through}")
            if (of_positions := getattr(held, f"pos_{through}")) is not None:
                side = side + pattern @ positions @ of_positions
        sides[through] = side
    scores = torch.zeros(n_pos, n_pos).double()
    for query in range(n_pos):
        for key in range(n_pos):
            q = sides["Q"][query]
            q = q if last.rates is None else rotate(q, last.rates, query - key)
            scores[query, key] = q @ sides["K"][key] / last.scale
    below = torch.ones(n_pos, n_pos).tril().bool()
    assert_close(scores[below], done["scores.1"][0, LATER.head][below])


def test_each_kind_is_the_later_head_with_one_input_replaced(norm_free):
    weights = effective_weights(norm_free)
    first, last = weights.head(EARLIER), weights.head(LATER)
    W_OV = first.W_V @ first.W_O
    values = virtual_head(weights, LATER, EARLIER)
    assert values.label == "1.2∘0.1"
    assert values.W_V.shape == (32, 8)
    assert_close(values.W_V @ values.W_O, W_OV @ last.W_V @ last.W_O)
    assert_close(values.W_Q @ values.W_K.T, last.W_Q @ last.W_K.T)
    keys = virtual_head(weights, LATER, EARLIER, through="K")
    assert_close(keys.W_Q @ keys.W_K.T, last.W_Q @ (W_OV @ last.W_K).T)
    assert_close(keys.W_V @ keys.W_O, last.W_V @ last.W_O)
    queries = virtual_head(weights, LATER, EARLIER, through="Q")
    assert queries.label == "1.2∘0.1 (Q)"
    assert_close(queries.W_Q @ queries.W_K.T, W_OV @ last.W_Q @ last.W_K.T)


def test_positions_that_no_head_moves_are_not_read_through_one(build):
    weights = effective_weights(build(order="ss", positions="shortformer"))
    keys = virtual_head(weights, LATER, EARLIER, through="K")
    assert keys.pos_K is None
    assert_close(keys.pos_Q, weights.head(LATER).pos_Q)


@pytest.mark.parametrize("name", ["model", "attn_2l"])
def test_rows_of_a_virtual_pattern_sum_to_one_and_look_back(name, request):
    done = run(request.getfixturevalue(name), "abcabc")
    pattern = virtual_pattern(done, LATER, EARLIER)
    assert_close(pattern.sum(-1), torch.ones(len(pattern)))
    assert pattern.triu(1).abs().max() == 0


def test_what_is_no_virtual_head_is_refused_by_name(build, norm_free):
    weights, done = effective_weights(norm_free), run(norm_free, PROMPT)
    with pytest.raises(SiteError, match=r"1\.2 is not in an earlier layer than 0\.1"):
        virtual_head(weights, EARLIER, LATER)
    with pytest.raises(SiteError, match=r"0\.1 is not in an earlier layer than 0\.2"):
        virtual_pattern(done, Head(0, 2), EARLIER)
    with pytest.raises(SiteError, match=r"no head 1\.9"):
        virtual_head(weights, Head(1, 9), EARLIER)
    with pytest.raises(SiteError, match=r"no head 1\.9"):
        virtual_pattern(done, Head(1, 9), EARLIER)
    with pytest.raises(PromptError, match="this run has 2"):
        virtual_pattern(run(norm_free, ["abc", "abcd"]), LATER, EARLIER)
    with pytest.raises(SiteError, match="did not keep pattern"):
        virtual_pattern(run(norm_free, PROMPT, sites=["z"]), LATER, EARLIER)
    post = effective_weights(build(norm="LN", norm_position="post"))
    with pytest.raises(UnsupportedError, match="normalises after each sum"):
        virtual_head(post, Head(1, 0), EARLIER)
