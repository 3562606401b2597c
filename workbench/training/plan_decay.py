"""A plan's decay by parameter, as the regularizer that it names."""

from fnmatch import fnmatchcase

from torch import Tensor

from workbench.training.layouts import Layout
from workbench.training.plan_checks import MAX_DECAY
from workbench.training.plan_fields import PlanError
from workbench.training.plan_texts import LENGTH, rates
from workbench.training.regularizers.decay import WeightDecay, distance_rates
from workbench.training.wires import Network

FIELD = "parameter_decay"


def parameter_decay(text: str | None, model: Network, layout: Layout) -> WeightDecay | None:
    """The decay of the parameters that a text names; None without one.

    Raises:
        PlanError: a pattern that fits no parameter of the model, or lengths of what has none.
    """
    if text is None:
        return None
    names = [name for name, _ in model.named_parameters()]
    lengths = distance_rates(model, layout)
    found: dict[str, float | Tensor] = {}
    for pattern, rate in rates(text, FIELD, MAX_DECAY).items():
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise PlanError(FIELD, f"names {pattern[:40]!r}: there are {', '.join(names)[:300]}")
        new = [name for name in fitting if name not in found]
        for name in new:
            if rate.by_length and name not in lengths:
                raise PlanError(FIELD, f"cannot give {name} a {LENGTH}: its wires have none")
            found[name] = rate.amount * lengths[name] if rate.by_length else rate.amount
    return WeightDecay(strength=1.0, rates=found)
