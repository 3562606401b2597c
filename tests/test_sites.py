import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import SiteError
from workbench.sites import KINDS, Head, Site, expand, is_global


@given(layer=st.integers(0, 9999), head=st.integers(0, 9999))
def test_a_head_survives_being_printed_and_read(layer, head):
    assert Head.parse(str(Head(layer, head))) == Head(layer, head)


@pytest.mark.parametrize("label", ["", "1", "1.", "a.b", "1.2.3", "-1.0", "1.2\n", "٣.٤", "9" * 30])
def test_a_bad_head_label_is_refused_with_its_form(label):
    with pytest.raises(SiteError, match=r"layer\.head"):
        Head.parse(label)


def test_heads_count_from_zero():
    with pytest.raises(SiteError, match="count from 0"):
        Head(-1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_site_survives_its_label_and_its_hook_name(kind):
    site = Site(kind) if is_global(kind) else Site(kind, 12)
    assert Site.parse(str(site)) == site
    assert Site.parse(site.hook) == site


def test_hook_names_are_those_of_transformer_lens():
    assert Site("pattern", 3).hook == "blocks.3.attn.hook_pattern"
    assert Site("resid_post", 0).hook == "blocks.0.hook_resid_post"
    assert Site("embed").hook == "hook_embed"


@pytest.mark.parametrize(
    ("kind", "layer"), [("patern", 0), ("pattern", None), ("embed", 0), ("pattern", -1)]
)
def test_impossible_sites_are_refused(kind, layer):
    with pytest.raises(SiteError):
        Site(kind, layer)


def test_a_kind_means_every_layer_and_repeats_are_dropped():
    sites = expand(["pattern", Site("pattern", 1), "embed"], n_layers=2)
    assert sites == [Site("pattern", 0), Site("pattern", 1), Site("embed")]


def test_a_layer_beyond_the_last_is_refused_with_the_range():
    with pytest.raises(SiteError, match="from 0 to 1"):
        expand(["pattern.2"], n_layers=2)
