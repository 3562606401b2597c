"""What a training run is: everything that a form can set, as one value that is checked and written as JSON.

    plan = presets()["bimt-independence/bimt"];   plan = replace(plan, steps=500);   create(root, plan)

Every field says in its metadata what it may be (plan_fields.py). Sizes of inputs and outputs are no fields:
they are the task's. A strength of 0 leaves its regularizer out.
"""

import json
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, no_type_check

from workbench.training.plan_checks import MAX_STRENGTH, check_together
from workbench.training.plan_fields import (
    PlanError,
    as_plain,
    check_fields,
    from_plain,
    read_object,
    stated,
)
from workbench.training.shapes import KINDS, MLPShape, Shape, TransformerShape
from workbench.training.task_kinds import TASK_KINDS, task_names

if TYPE_CHECKING:
    from workbench.training.making import Made

__all__ = [
    "MLPShape",
    "Plan",
    "PlanError",
    "Shape",
    "TransformerShape",
    "fields_for",
    "make_run",
    "presets",
    "task_names",
]

FORMAT = "workbench-plan-1"
MAX_TEXT = 1000


def _strength(hint: str) -> Any:
    return stated(0.0, kind="number", unit="λ", bounds=(0, MAX_STRENGTH), hint=f"{hint}; 0 = off")


# Values are checked by the class itself, by the name of the field; a type checker would come before it.
@no_type_check
@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training run.

    Raises:
        PlanError: a value that cannot be meant, or a network that the task is not for.
    """

    name: str = stated(MISSING, kind="text", bounds=(1, 80), hint="what the run is called")
    task: str = stated(MISSING, kind="choice", choices=task_names(), hint="what is learned")
    network: Shape = stated(MISSING, kind="network", hint="what learns it")
    folder: str | None = stated(
        None, kind="text", bounds=(1, 4096), hint="of your files, where the task reads them"
    )
    modulus: int = stated(59, kind="whole", bounds=(2, 1000), hint="p of addition modulo p")
    data_seed: int = stated(0, kind="whole", bounds=(0, 2**31 - 1), hint="draws the examples")
    batch_rows: int | None = stated(
        None,
        kind="whole",
        unit="rows",
        bounds=(1, 100_000),
        hint="of a batch; empty = the task's own",
    )
    repeat_rows: int = stated(
        0,
        kind="whole",
        unit="rows",
        bounds=(0, 100_000),
        hint="of a batch of text: repeated random tokens",
    )
    steps: int = stated(2000, kind="whole", unit="steps", bounds=(1, 10_000_000), hint="in all")
    seed: int = stated(
        0, kind="whole", bounds=(0, 2**31 - 1), hint="draws initial weights and batches"
    )
    batch_seed: int | None = stated(
        None, kind="whole", bounds=(0, 2**31 - 1), hint="draws batches; empty = by the seed"
    )
    precision: Literal["float32", "float64"] = stated(
        "float32", kind="choice", choices=("float32", "float64"), hint="of weights and gradients"
    )
    optimizer: Literal["adamw", "sgd"] = stated(
        "adamw", kind="choice", choices=("adamw", "sgd"), hint="what follows the gradient"
    )
    momentum: float = stated(
        0.9, kind="number", bounds=(0, 0.999999), hint="how long SGD goes on as before; 0 = not"
    )
    lr: float = stated(
        2e-3, kind="number", bounds=(0, 100), hint="the optimizer's peak rate of learning"
    )
    muon_lr: float | None = stated(
        None,
        kind="number",
        bounds=(0, 100),
        hint="Muon's, for the matrices inside layers; empty = none are Muon's",
    )
    beta2: float = stated(
        0.999,
        kind="number",
        bounds=(0, 0.999999),
        hint="how long AdamW remembers squared gradients",
    )
    weight_decay: float = stated(
        0.0,
        kind="number",
        bounds=(0, 100),
        hint="of all weights, decoupled; SGD takes it through its momentum; 0 = off",
    )
    parameter_decay: str | None = stated(
        None,
        kind="text",
        bounds=(1, MAX_TEXT),
        hint="decoupled, by name, the first that fits: *.b: 0, layers.*.W: 0.1 length "
        "(times each wire's length); empty = none",
    )
    warmup: float = stated(
        0.0, kind="number", unit="of the steps", bounds=(0, 1), hint="in which the rate rises"
    )
    decay: float = stated(
        0.0, kind="number", unit="of the steps", bounds=(0, 1), hint="at the end, in which it falls"
    )
    clip: float | None = stated(
        None, kind="number", bounds=(1e-9, 1e9), hint="largest norm of a gradient; empty = any"
    )
    wiring: float = _strength(
        "strength of wiring length: each wire costs its size times its length"
    )
    schedule: Literal["constant", "published", "piecewise"] = stated(
        "constant",
        kind="choice",
        choices=("constant", "published", "piecewise"),
        hint="whether the strength of wiring length is the same in all steps, or jumps as published or given",
    )
    strengths: str | None = stated(
        None,
        kind="text",
        bounds=(1, MAX_TEXT),
        hint="share of the steps: strength of wiring length from there on, as 0:0.001, 0.25:0.01",
    )
    per_distance: float = stated(
        1.0, kind="number", bounds=(0, 1e6), hint="A: what a unit of distance costs; 0 = size alone"
    )
    gap: float = stated(
        0.1, kind="number", unit="distance", bounds=(0, 1e6), hint="y0: between two layers"
    )
    reduction: Literal["sum", "mean"] = stated(
        "sum", kind="choice", choices=("sum", "mean"), hint="of the cost of the wires of a matrix"
    )
    last_distance: bool = stated(
        True, kind="flag", hint="whether wires to the outputs cost their length too"
    )
    places: Literal["lines", "squares"] = stated(
        "lines",
        kind="choice",
        choices=("lines", "squares"),
        hint="where the units of a layer stand",
    )
    metric: Literal["manhattan", "euclidean"] = stated(
        "manhattan",
        kind="choice",
        choices=("manhattan", "euclidean"),
        hint="of distances on squares: along rows and columns, or straight",
    )
    l1: float = _strength("size of all wires, wherever they lead")
    head_lasso: float = _strength("group lasso over heads")
    unit_lasso: float = _strength("group lasso over channels of the stream, or hidden neurons")
    clusterability: float = _strength("share of squared weight between clusters")
    clusters: int = stated(
        4, kind="whole", unit="clusters", bounds=(1, 1000), hint="of which units are to be in one"
    )
    decorrelation: float = _strength("likeness of what two heads of a layer write")
    channel_cost: float = _strength("later channels cost more")
    nested_dropout: float = _strength("loss through the first channels alone, as many as are drawn")
    swaps: Literal["none", "assignment", "greedy"] = stated(
        "none",
        kind="choice",
        choices=("none", "assignment", "greedy"),
        hint="how units trade places so that wires become shorter",
    )
    swap_every: int = stated(
        200, kind="whole", unit="steps", bounds=(1, 10_000_000), hint="between two rounds of swaps"
    )
    top_k: int | None = stated(
        30,
        kind="whole",
        unit="units",
        bounds=(1, 100_000),
        hint="a layer has to place in a greedy round; empty = all",
    )
    swap_inputs: bool = stated(
        True, kind="flag", hint="whether inputs trade places too; not where they are pixels"
    )
    snapshots: int = stated(
        20,
        kind="whole",
        unit="snapshots",
        bounds=(0, 1000),
        hint="of the weights, spread over the run",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_together(self)

    @property
    def network_kind(self) -> str:
        """`mlp` or `transformer`."""
        return "mlp" if isinstance(self.network, MLPShape) else "transformer"

    @property
    def reads_batches(self) -> bool:
        """Whether the task is a text, some rows of whose batches may be random tokens that repeat."""
        return TASK_KINDS[self.task].is_text

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """The steps whose weights are kept: first, last, and as many between."""
        if not self.snapshots:
            return ()
        if self.snapshots == 1:
            return (self.steps,)
        spread = (self.steps * index // (self.snapshots - 1) for index in range(self.snapshots))
        return tuple(sorted(set(spread)))

    def to_json(self) -> str:
        """This plan as a JSON object, every field written out."""
        network = {"kind": self.network_kind, **as_plain(self.network)}
        return json.dumps({"format": FORMAT, **as_plain(self), "network": network}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan.

        Raises:
            PlanError: the field that is unknown, missing or out of range.
            ConfigError: not a JSON object.
        """
        given = read_object(text)
        if (found := given.pop("format", None)) != FORMAT:
            raise PlanError("format", f"must be {FORMAT!r}, not {found!r:.60}")
        network = given.get("network")
        if not isinstance(network, dict) or network.get("kind") not in tuple(KINDS):
            raise PlanError("network", f"must be an object whose kind is {' or '.join(KINDS)}")
        shape = {name: value for name, value in network.items() if name != "kind"}
        network = from_plain(KINDS[network["kind"]], shape, "network.")
        return from_plain(cls, given | {"network": network})


def fields_for(plan: Plan) -> dict[str, str]:
    """Every field by name (`network.d_vocab`, say) → why it does not apply; empty where it does."""
    from workbench.training.applicable import reasons

    return reasons(plan)


def presets() -> dict[str, Plan]:
    """Plans to begin with, by name."""
    from workbench.training.presets import all_presets

    return all_presets()


def make_run(plan: Plan, folder: Path | None = None) -> "Made":
    """Model, data, schedule and all that shapes the weights.

    Args:
        folder: of the run, where text of the user's is kept as it was at the start.

    Raises:
        PlanError: the folder of files is missing, empty or broken, or the parts do not fit together.
    """
    from workbench.training.making import made

    return made(plan, folder)


def changed(plan: Plan, **values: Any) -> Plan:
    """The plan with other values; those of the network by their own names with `network_` before them."""
    of_network = {
        k.removeprefix("network_"): v for k, v in values.items() if k.startswith("network_")
    }
    rest = {name: value for name, value in values.items() if not name.startswith("network_")}
    network = replace(plan.network, **of_network) if of_network else plan.network
    return replace(plan, **{"network": network} | rest)
