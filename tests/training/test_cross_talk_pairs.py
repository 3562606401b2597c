"""Cross-talk of pairs that should not be joined: the modules' own where there are modules, and more."""

import numpy as np
import pytest
import torch

from workbench.errors import ConfigError
from workbench.training.layouts import line_layout
from workbench.training.measuring import measured, subject_of
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.modularity import Options, modularity
from workbench.training.modularity.graph import blocks_of
from workbench.training.modularity.measures import cross_talk, cross_talk_of_pairs
from workbench.training.regularizers.swaps import Swaps
from workbench.training.reports import measure, parts_of
from workbench.training.tasks import FORMULAS, formula_task
from workbench.training.wires import groups, wires

ENDS = ("inputs", "outputs")


def random_mlp(*widths, seed=0):
    return MLP(MLPConfig(widths=widths, seed=seed))


def blocks(model):
    return blocks_of(wires(model), groups(model))


def test_what_formulas_keep_apart_is_what_is_written_of_them():
    """(x1², x1² + x2², x1² + x2² + x3²): y1 reads x1 alone, y2 not x3; a root reads all."""
    shares = FORMULAS["feature-sharing"].apart
    assert shares.tolist() == [[False] * 3, [True, False, False], [True, True, False]]
    assert not FORMULAS["compositionality"].apart.any()
    inputs, outputs = (np.array(side) for side in FORMULAS["independence"].sides)
    assert (FORMULAS["independence"].apart == (inputs[:, None] != outputs)).all()


def test_pairs_are_the_mass_of_the_product_there():
    model, apart = random_mlp(3, 6, 5, 3), FORMULAS["feature-sharing"].apart
    with torch.no_grad():
        product = torch.linalg.multi_dot([layer.W.abs().double() for layer in model.layers])
    expected = product.numpy()[apart].sum() / product.numpy().sum()
    assert cross_talk_of_pairs(blocks(model), {ENDS: apart}) == pytest.approx(expected)
    assert 0 < expected < 1


def test_pairs_of_unlike_modules_are_the_cross_talk_of_the_modules():
    model = random_mlp(4, 6, 2)
    sides = {"inputs": np.array([0, 1, 0, 1]), "outputs": np.array([0, 1])}
    apart = sides["inputs"][:, None] != sides["outputs"]
    expected = cross_talk(blocks(model), sides)
    assert cross_talk_of_pairs(blocks(model), {ENDS: apart}) == pytest.approx(expected)


def test_a_network_that_computes_each_square_for_itself_has_none():
    """x_i reaches y_i and the outputs after it, and no other."""
    model = random_mlp(3, 6, 3)
    with torch.no_grad():
        for layer in model.layers:
            layer.W.zero_()
        for entry in range(3):
            model.layers[0].W[entry, 2 * entry : 2 * entry + 2] = 1.0
            model.layers[1].W[2 * entry : 2 * entry + 2, entry:] = 0.5
    apart = {ENDS: FORMULAS["feature-sharing"].apart}
    assert cross_talk_of_pairs(blocks(model), apart) == 0
    with torch.no_grad():
        model.layers[1].W[4, 0] = 0.5  # x3 into y1: one path of thirteen
    assert cross_talk_of_pairs(blocks(model), apart) == pytest.approx(1 / 13)


def test_the_table_has_it_with_its_null_however_units_are_numbered():
    """Swaps number the units anew, and the formula's pairs with them."""
    model, task = random_mlp(3, 8, 3, seed=4), formula_task("feature-sharing")
    found = []
    for is_swapped in (False, True):
        layout = line_layout(model)
        if is_swapped:
            Swaps(layout=layout)(model)
            assert model.in_perm.tolist() + model.out_perm.tolist() != [0, 1, 2] * 2
        sides, apart = parts_of("feature-sharing", model)
        assert sides is None
        options = Options(n_shuffles=4, trials=1, apart=apart)
        table = measure(model, task.train, layout, loss=0.1, options=options)
        assert len(table["cross-talk"].null) == 4
        assert table["cross-talk, pruned"].value >= 0
        found.append(table["cross-talk"])
    assert found[0].value == pytest.approx(found[1].value)
    assert found[0].null == pytest.approx(found[1].null)


def test_tasks_keep_the_form_that_they_had():
    """Independence has its sides, to the last digit; what joins everything has neither."""
    model = random_mlp(4, 6, 2)
    sides, apart = parts_of("independence", model)
    assert apart is None
    assert {name: labels.tolist() for name, labels in sides.items()} == {
        "inputs": [0, 1, 0, 1],
        "outputs": [0, 1],
    }
    assert parts_of("compositionality", random_mlp(4, 6, 1)) == (None, None)
    assert parts_of("two moons", random_mlp(2, 6, 2)) == (None, None)


def test_a_network_is_measured_so_wherever_it_comes_from():
    model, task = random_mlp(3, 6, 3), formula_task("feature-sharing")
    chosen = subject_of(model, "feature-sharing", task, line_layout(model))
    apart = {ENDS: FORMULAS["feature-sharing"].apart}
    found = measured(chosen, shuffles=2)["cross-talk"].value
    assert found == pytest.approx(cross_talk_of_pairs(blocks(model), apart))


@pytest.mark.parametrize(
    ("apart", "message"),
    [
        ({("inputs", "ends"): np.ones((3, 3), bool)}, "no group 'ends'"),
        ({ENDS: np.ones((3, 2), bool)}, r"true or false of \(3, 3\) units"),
        ({ENDS: np.ones((3, 3))}, "not float64"),
        ({("outputs", "inputs"): np.ones((3, 3), bool)}, "from inputs to outputs"),
    ],
)
def test_a_mask_that_fits_no_ends_is_refused(apart, message):
    model = random_mlp(3, 6, 3)
    options = Options(n_shuffles=2, trials=1, n_clusters=2, apart=apart)
    with pytest.raises(ConfigError, match=message):
        modularity(wires(model), groups(model), loss=0.0, options=options)


def test_modules_and_pairs_are_not_given_together():
    with pytest.raises(ConfigError, match="one of the two"):
        Options(sides={"inputs": [0]}, apart={ENDS: np.ones((1, 1), bool)})
