"""A contribution is what an intervention with all else frozen takes away; in a linear model, what any does."""

import pytest
import torch

from tests.paths.test_frozen import IDS, OURS, double
from tests.paths.test_search import asked, brute_force
from tests.test_weights import PUBLIC, public
from workbench.errors import ConfigError
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.scores import score_direction
from workbench.paths.search import Path, top_paths
from workbench.paths.through import paths_through
from workbench.paths.verify import level_site, verify
from workbench.sites import Head, Site
from workbench.stream.parts import Part

EMBED = Part("embed", "embed")
PRE_NORM = [name for name in OURS if OURS[name].get("norm_position") != "post"]


def site_of(model, ids, site):
    """One activation of a plain run."""
    kept = {}
    with torch.no_grad(), model.hooks([(model.site_hook(site), lambda x, hook: kept.update(x=x))]):
        model(torch.tensor([ids]))
    return kept["x"][0]


def lost_without(frozen, direction, message):
    """What the number loses when a message is taken from the final stream."""
    model = frozen.model
    last = site_of(model, IDS, Site("resid_post", model.cfg.n_layers - 1))
    with torch.no_grad():
        logits = model.readout(last - message)[direction.pos]
    return direction.total - float(logits[2] - logits[5])


def linear(build, order):
    """No norms, no gates, and heads that look everywhere alike whatever they read."""
    model = build(order=order, scale=2.0).double()
    for block in model.blocks:
        with torch.no_grad():
            block.attn.W_Q.zero_()
    return model


@pytest.mark.parametrize("name", OURS)
def test_the_frozen_intervention_is_the_contribution(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = asked(frozen)
    through = paths_through(frozen, direction)
    some = slice(None, None, max(1, len(through.components) // 4))
    for part, value in list(zip(through.components, through.through, strict=True))[some]:
        check = verify(frozen, direction, part)
        assert check.contribution == pytest.approx(value, abs=1e-10)
        assert abs(check.error) < 1e-10
    found = top_paths(frozen, direction, k=3)
    for path, value in zip(found.paths, found.values, strict=True):
        check = verify(frozen, direction, path)
        assert check.contribution == pytest.approx(value, abs=1e-10)
        assert abs(check.error) < 1e-10


@pytest.mark.parametrize("order", ["s", "sss"])
def test_in_a_linear_model_the_model_itself_answers_alike(build, order):
    frozen = freeze(linear(build, order), IDS)
    direction = asked(frozen)
    paths = list(brute_force(frozen, direction))
    for what in [*frozen.components, *paths[:: max(1, len(paths) // 12)]]:
        check = verify(frozen, direction, what)
        assert check.unfrozen == pytest.approx(check.contribution, abs=1e-10)
        assert abs(check.response) < 1e-10


def test_taking_out_every_path_of_a_linear_model_takes_the_logit(build):
    frozen = freeze(linear(build, "ss"), IDS)
    direction = asked(frozen)
    lost = [verify(frozen, direction, path).unfrozen for path in brute_force(frozen, direction)]
    assert sum(lost) == pytest.approx(direction.total - direction.bias, abs=1e-10)


def test_taking_out_nothing_changes_nothing(build):
    model = double(build, "LN, learned, biases")
    with torch.no_grad():
        model.blocks[0].attn.W_O[1].zero_()
        before = model(torch.tensor([IDS]))
    frozen = freeze(model, IDS)
    head = Part("0.1", "head", 0, 1)
    for what in (head, Path(EMBED, (head,)), Path(EMBED, (head, Part("mlp 1", "mlp", 1)))):
        check = verify(frozen, asked(frozen), what)
        assert check.contribution == check.frozen == check.unfrozen == 0
    with torch.no_grad():
        assert torch.equal(model(torch.tensor([IDS])), before)


@pytest.mark.parametrize("name", [name for name in PRE_NORM if OURS[name]["order"]])
def test_behind_the_last_component_only_the_final_norm_answers(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = asked(frozen)
    check = verify(frozen, direction, frozen.components[-1])
    expected = lost_without(frozen, direction, frozen.written[-1][-1])
    assert check.unfrozen == pytest.approx(expected, abs=1e-10)
    straight = verify(frozen, direction, Path(EMBED))
    expected = lost_without(frozen, direction, frozen.sources[EMBED])
    assert straight.unfrozen == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_models_answer_to_their_last_component(name):
    frozen = freeze(public(name), IDS)
    direction = asked(frozen)
    for part, written in zip(frozen.steps[-1].components, frozen.written[-1], strict=True):
        check = verify(frozen, direction, part)
        expected = lost_without(frozen, direction, written)
        assert check.unfrozen == pytest.approx(expected, abs=1e-4)
        assert check.error == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in PUBLIC if not name.startswith("gpt2")])
def test_a_first_layer_that_reads_nothing_but_tokens_loses_its_whole_output(name):
    """Without the embedding a rotary model's first heads read zeros: the message is all that they write."""
    frozen = freeze(public(name), IDS)
    assert list(frozen.sources) == [EMBED]
    direction = asked(frozen)
    for part, written in list(zip(frozen.components, frozen.written[0], strict=False))[:2]:
        check = verify(frozen, direction, Path(EMBED, (part,)))
        assert check.unfrozen == pytest.approx(lost_without(frozen, direction, written), abs=1e-4)
        assert check.error == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("LN, learned, biases", "resid_mid"),
        ("RMS, rotary, grouped, gated", "resid_mid"),
        ("RMSPre, parallel", "resid_pre"),
        ("half steps, gated, LN", "resid_pre"),
    ],
)
def test_a_path_through_an_mlp_is_that_mlp_run_without_its_source(build, name, reads):
    model = double(build, name)
    frozen = freeze(model, IDS)
    direction = asked(frozen)
    stream, block = site_of(model, IDS, Site(reads, 0)), model.blocks[0]
    with torch.no_grad():
        outs = [block.mlp(block.ln2(x)[None])[0] for x in (stream, stream - frozen.sources[EMBED])]
    check = verify(frozen, direction, Path(EMBED, (Part("mlp 0", "mlp", 0),)))
    expected = lost_without(frozen, direction, outs[0] - outs[1])
    assert check.unfrozen == pytest.approx(expected, abs=1e-10)


def test_a_path_of_two_links_is_patched_link_by_link(build):
    """By hand: the head without the embedding, then the MLP without what the head lost."""
    model = double(build, "LN, learned, biases")
    frozen = freeze(model, IDS)
    direction = asked(frozen)
    block, later = model.blocks
    pre = site_of(model, IDS, Site("resid_pre", 0))
    mid = site_of(model, IDS, Site("resid_mid", 1))
    earlier = torch.ones(1, 1, len(IDS), len(IDS), dtype=torch.bool).tril()
    kept = {}
    hook = ("blocks.0.attn.hook_z", lambda z, hook: kept.update(z=z[0, :, 1]))
    written = []
    for x in (pre, pre - frozen.sources[EMBED]):
        with torch.no_grad(), model.hooks([hook]):
            block(x[None], None, earlier)
        written.append(kept["z"] @ block.attn.W_O[1])
    first = written[0] - written[1]
    with torch.no_grad():
        outs = [later.mlp(later.ln2(x)[None])[0] for x in (mid, mid - first)]
    check = verify(
        frozen, direction, Path(EMBED, (Part("0.1", "head", 0, 1), Part("mlp 1", "mlp", 1)))
    )
    expected = lost_without(frozen, direction, outs[0] - outs[1])
    assert check.unfrozen == pytest.approx(expected, abs=1e-10)


def test_norms_of_sums_are_recomputed_on_the_way(build):
    """By hand in a post-norm block: past the attention, through the MLP, past the last norm."""
    fields = OURS["post-norm"] | {"order": "sf"}
    model = build(scale=2.0, **fields).double()
    frozen = freeze(model, IDS)
    direction = asked(frozen)
    block = model.blocks[0]
    pre = site_of(model, IDS, Site("resid_pre", 0))
    attn, mlp = (site_of(model, IDS, Site(kind, 0)) for kind in ("attn_out", "mlp_out"))
    with torch.no_grad():
        mid = block.ln1(pre + attn)
        message = mid - block.ln1(pre + attn - frozen.sources[EMBED])
        answer = mlp - block.mlp((mid - message)[None])[0]
        logits = model.unembed(block.ln2(mid + mlp - answer))[direction.pos]
    check = verify(frozen, direction, Path(EMBED, (Part("mlp 0", "mlp", 0),)))
    expected = direction.total - float(logits[2] - logits[5])
    assert check.unfrozen == pytest.approx(expected, abs=1e-10)


def test_levels_are_where_the_model_holds_them(build):
    for name in OURS:
        frozen = freeze(double(build, name), IDS)
        reads = {step.reads for step in frozen.steps} | {len(frozen.steps)}
        for level in reads:
            if not frozen.steps:
                continue
            held = site_of(frozen.model, IDS, level_site(frozen, level))
            torch.testing.assert_close(held, frozen.levels[level])
    assert level_site(freeze(double(build, "no layers"), IDS), 0) == Site("embed")


def test_a_check_has_a_table_and_refusals_have_names(build):
    frozen = freeze(double(build, "LNPre, sinusoidal"), IDS)
    direction = logit_direction(frozen, 2)
    check = verify(frozen, direction, Path(EMBED, (Part("0.1", "head", 0, 1),)))
    row = check.table().iloc[0]
    assert row["label"] == "embed → 0.1" and row["response"] == check.unfrozen - check.frozen
    with pytest.raises(ConfigError, match=r"no component 9\.9"):
        verify(frozen, direction, Part("9.9", "head", 9, 9))
    with pytest.raises(ConfigError, match="no path starts at bias mlp 7"):
        verify(frozen, direction, Path(Part("bias mlp 7", "bias", 7)))


@pytest.mark.parametrize("name", ["LN, learned, biases", "RMSPre, parallel", "post-norm"])
def test_paths_to_a_score_are_taken_from_what_its_layer_reads(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = score_direction(frozen, Head(1, 2), 5, 3)
    found = top_paths(frozen, direction, k=4)
    assert abs(found.residual) < 1e-10 and found.unit == "score"
    for what in (*found.paths, frozen.components[1]):
        check = verify(frozen, direction, what)
        assert abs(check.error) < 1e-10 and check.unit == "score"
    # What layer 1 writes comes too late for its own scores.
    with pytest.raises(ConfigError, match=r"no component 1\.0|does not feed"):
        verify(frozen, direction, Part("1.0", "head", 1, 0))
