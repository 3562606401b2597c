import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.linalg import subspace_angles
from torch.testing import assert_close

from tests.circuit_models import randomised
from workbench.circuits.angles import principal_angles
from workbench.circuits.geometry import (
    CIRCUITS,
    UNITS,
    balanced,
    measures,
    qk_geometry,
    sides,
    spectrum,
)
from workbench.errors import ConfigError, SiteError, UnsupportedError
from workbench.sites import Head
from workbench.weights import effective_weights


def gaussian(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def dense_measures(W):
    """From the whole matrix, by definition."""
    symmetric = (W + W.T) / 2
    eigenvalues = torch.linalg.eigvalsh(symmetric)
    energy = torch.linalg.svdvals(W) ** 2
    share = energy / energy.sum()
    share = share[share > 1e-14]
    return [
        float(symmetric.norm() ** 2 / W.norm() ** 2),
        float(eigenvalues[eigenvalues > 0].sum() / eigenvalues.abs().sum()),
        float(1 / (share**2).sum()),
        float(torch.exp(-(share * share.log()).sum())),
        next(n for n in range(1, len(share) + 1) if float(share[:n].sum()) >= 0.9 - 1e-9),
    ]


@pytest.mark.parametrize("size", [4, 10, 30])
def test_measures_equal_those_of_the_dense_matrix(size):
    left, right = gaussian(24, size), gaussian(24, size, seed=1)
    assert_allclose(measures(spectrum(left, right)), dense_measures(left @ right.T), rtol=1e-9)


@pytest.mark.parametrize(
    "fields",
    [
        {"order": "ss", "norm": "RMS", "positions": "rotary", "n_kv_heads": 2},
        {"order": "ss", "norm": "LN", "head_sizes": ((4, 8, 20), (16, 16))},
        {"order": "ss", "norm": "LN", "norm_position": "post", "causal": False},
    ],
)
def test_the_table_holds_the_measures_of_every_circuit(build, fields):
    weights = effective_weights(randomised(build, fields))
    offset = 5 if weights.cfg.positions == "rotary" else 0
    table = qk_geometry(weights, offset=offset, n_null=8).table()
    assert len(table) == len(weights.heads) * len(CIRCUITS) * len(UNITS)
    of_head = table.set_index(["layer", "head", "circuit"])
    for head in weights.heads:
        for circuit in CIRCUITS:
            left, right = sides(weights.head(head), circuit, offset)
            rows = of_head.loc[(head.layer, head.head, circuit)]
            assert rows["measure"].tolist() == list(UNITS)
            assert_allclose(rows["value"], dense_measures(left @ right.T), rtol=1e-8)


def test_counts_of_eigenvalues_say_nothing():
    """Random or trained, half of them are positive; the mass can still lie on one side."""
    left, right = gaussian(64, 8), gaussian(64, 8, seed=1)
    for near in (0.0, 0.99):
        found = spectrum(left, near * left + (1 - near) * right)
        assert (found.symmetric > 0).sum() == 8
        assert (found.symmetric < 0).sum() == 8
    assert float(measures(found)[1]) > 0.98


def test_symmetric_and_antisymmetric_circuits_are_told_apart():
    left, right = gaussian(24, 6), gaussian(24, 6, seed=1)
    own, other = torch.cat([left, right], 1), torch.cat([right, left], 1)
    turned = torch.cat([right, -left], 1)
    assert_allclose(measures(spectrum(own, other))[0], 1)
    assert_allclose(measures(spectrum(own, turned))[0], 0, atol=1e-12)
    assert_allclose(measures(spectrum(left, left))[:2], [1, 1])
    assert_allclose(measures(spectrum(left, -left))[:2], [1, 0], atol=1e-12)


def test_all_ranks_of_an_isometry_are_its_dimension():
    basis = torch.linalg.qr(gaussian(24, 10)).Q
    assert_allclose(measures(spectrum(basis, basis))[2:], [10, 10, 9])
    strong = basis * torch.tensor([1e4] + [1e-4] * 9)
    assert_allclose(measures(spectrum(strong, basis))[2:], [1, 1, 1], rtol=1e-6)


def test_random_heads_lie_within_their_own_null(build):
    weights = effective_weights(build(order="ss", n_heads=8, d_model=64, d_head=8))
    table = qk_geometry(weights, n_null=400).table()
    z = (table["value"] - table["null_mean"]) / table["null_std"]
    for measure in UNITS:
        of_measure = table["measure"] == measure
        assert abs(z[of_measure].mean()) < 0.6
        assert 0.6 < z[of_measure].std() < 1.5
        assert 25 < table["percentile"][of_measure].mean() < 75
    halves = table[table["measure"].isin(["symmetric share", "positive mass"])]
    assert_allclose(halves["null_mean"], 0.5, atol=0.02)


def test_the_seed_alone_decides_the_null(build):
    weights = effective_weights(build(order="s"))
    first, again, other = (qk_geometry(weights, n_null=8, seed=seed).table() for seed in (1, 1, 2))
    assert first.equals(again)
    assert_allclose(first["value"], other["value"])
    assert not np.allclose(first["null_mean"], other["null_mean"])


def test_a_head_without_weights_has_no_geometry(build):
    model = build(order="s")
    with torch.no_grad():
        model.blocks[0].attn.W_V[1] = 0
    table = qk_geometry(effective_weights(model), n_null=8).table()
    empty = (table["head"] == 1) & (table["circuit"] == "OV")
    assert table["value"][empty].isna().all()
    assert table["percentile"][empty].isna().all()
    assert table["value"][~empty].notna().all()


def test_balanced_factors_are_orthogonal_equally_strong_and_unique():
    left, right = gaussian(24, 6), gaussian(18, 6, seed=1)
    mix = gaussian(6, 6, seed=2)
    for a, b in ((left, right), (left @ mix, right @ torch.linalg.inv(mix).T)):
        first, second = balanced(a, b)
        assert_close(first @ second.T, left @ right.T)
        assert_close(first.T @ first, second.T @ second)
        S = torch.linalg.svdvals(left @ right.T)[:6]
        assert_close(first.T @ first, torch.diag(S))


def test_angles_are_those_of_planted_directions(build):
    model = build(order="ss", n_heads=1, d_model=32, d_head=4).double()
    eye = torch.eye(32).double()
    angle = torch.tensor([0.0, 0.3, 1.0, torch.pi / 2]).double()[:, None]
    with torch.no_grad():
        model.blocks[0].attn.W_O[0] = gaussian(4, 4) @ eye[:4]
        read = angle.cos() * eye[:4] + angle.sin() * eye[4:8]
        model.blocks[1].attn.W_K[0] = read.T @ gaussian(4, 4, seed=1)
    found = principal_angles(effective_weights(model), (Head(0, 0), "O"), (Head(1, 0), "K"))
    assert_allclose(found.angles, np.degrees(angle[:, 0].numpy()), atol=1e-5)
    assert_allclose(found.overlap, float((angle.cos() ** 2).mean()))
    table = found.table()
    assert table["first"][0] == "0.0 W_O"
    assert_allclose(table["value"], found.angles)
    assert (table["percentile"][:3] == 0).all()


def test_random_subspaces_meet_at_the_angles_of_chance(build):
    weights = effective_weights(build(order="ss", n_heads=2, d_model=64, d_head=16))
    found = principal_angles(weights, (Head(0, 0), "O"), (Head(1, 1), "V"), n_null=400)
    assert found.chance == 0.25
    assert abs(found.overlap - 0.25) < 0.05
    assert_allclose(np.cos(np.radians(found.null)).__pow__(2).mean(), 0.25, atol=0.005)
    drawn = np.degrees(subspace_angles(gaussian(64, 16).numpy(), gaussian(64, 16, seed=1).numpy()))
    spread = found.null.std(0)
    assert (np.abs(np.sort(drawn) - found.null.mean(0)) < 4 * spread).all()


def test_subspaces_of_unequal_size_have_the_chance_of_the_larger(build):
    weights = effective_weights(build(order="ss", head_sizes=((4, 20), (16, 16))))
    found = principal_angles(weights, (Head(0, 0), "O"), (Head(0, 1), "Q"))
    assert len(found.angles) == 4
    assert found.chance == 20 / 32
    assert_allclose(np.cos(np.radians(found.null)).__pow__(2).mean(), 20 / 32, atol=0.03)


def test_a_post_norm_encoder_has_geometry(build):
    weights = effective_weights(build(norm="LN", norm_position="post", causal=False))
    assert qk_geometry(weights, n_null=4).table()["value"].notna().all()


def test_what_has_no_geometry_is_refused_by_name(build):
    model = build(order="ss")
    with torch.no_grad():
        model.blocks[1].attn.W_K[2] = 0
    weights = effective_weights(model)
    with pytest.raises(ConfigError, match="2 draws or more, not 1"):
        qk_geometry(weights, n_null=1)
    with pytest.raises(UnsupportedError, match="letters has no attention"):
        qk_geometry(effective_weights(build(order="f")))
    with pytest.raises(ConfigError, match="2 draws or more, not 0"):
        principal_angles(weights, (Head(0, 0), "O"), (Head(1, 0), "K"), n_null=0)
    with pytest.raises(UnsupportedError, match=r"W_K of head 1\.2 is zero"):
        principal_angles(weights, (Head(0, 0), "O"), (Head(1, 2), "K"))
    with pytest.raises(SiteError, match=r"no head 0\.7"):
        principal_angles(weights, (Head(0, 7), "O"), (Head(1, 2), "K"))
