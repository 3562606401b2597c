"""Networks that training makes modular, as recipes: brain-inspired modular training and its four controls.

    loss = task + λ(step) · [Σ red(|W| ⊙ (A·d + y0)) + bias(step) · Σ red(y0·|b|) + red(y0·|W_E|)]

    none    λ = 0                                  local   distances, no swaps
    l1      A = 0, no swaps                        swap    A = 0, swaps
                                                   bimt    distances and swaps

Shapes, data, schedules and strengths are those published (Liu, Gan, Tegmark 2023, "Seeing is Believing", and
its code): AdamW without decay or clipping at a constant rate, greedy swaps; all training examples in every step
and places on lines, except for images. Three things differ: Adam's moments move with the units that swap;
digits of 8 × 8 pixels stand in for MNIST, in a quarter of its steps, where its files are not given; and in
context units swap every 200 steps, where the published interval is longer than its run (`local` here).
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from workbench.errors import ConfigError, UnknownModelError

Variant = Literal["none", "l1", "local", "swap", "bimt"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
PREFIX = "bimt-"
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One network to train, as published.

    Args:
        shape: the fields of its `MLPConfig`, or `TransformerConfig`.
        strength: λ by share of the steps.
        per_distance: A.
        gap: y0.
        bias: what biases cost, times y0, by share of the steps.
        top_k: neurons of each layer that a round of swaps tries to place.
        in_double: float64, as published for the groups whose loss becomes small.
        on_grid: units stand on squares and the outputs on a ring, instead of on lines.
        fixed: groups that do not swap.
        last_distance: False = the last block costs its gap alone, though swaps see its distances.
        from_files: the data are files that the user has.
    """

    name: str
    summary: str
    data: str
    data_seed: int
    shape: dict[str, Any]
    lr: float
    steps: int
    strength: Points
    per_distance: float
    gap: float
    reduction: Literal["sum", "mean"]
    bias: Points = ((0.0, 1.0),)
    top_k: int
    every: int = 200
    in_double: bool = False
    kind: Literal["mlp", "transformer"] = "mlp"
    on_grid: bool = False
    fixed: tuple[str, ...] = ()
    last_distance: bool = True
    from_files: bool = False


_FORMULA: dict[str, Any] = {
    "lr": 2e-3,
    "steps": 20_000,
    "strength": ((0.0, 1e-3), (0.25, 1e-2), (0.75, 1e-3)),
    "per_distance": 1.0,
    "gap": 0.1,
    "reduction": "sum",
    "bias": ((0.0, 0.0), (0.75, 1.0)),
    "top_k": 5,
}
_IMAGES: dict[str, Any] = {
    "data_seed": 0,
    "lr": 1e-3,
    "strength": ((0.0, 0.01), (0.25, 0.1), (0.5, 1.0)),
    "per_distance": 2.0,
    "gap": 0.5,
    "reduction": "mean",
    "top_k": 30,
    "every": 500,
    "on_grid": True,
    "fixed": ("inputs",),
    "last_distance": False,
}
_EXPERIMENTS = (
    Experiment(
        name="bimt-independence",
        summary="Two outputs that share no input: ((x1 + x3)³, x2² + sin πx4).",
        data="independence",
        data_seed=0,
        shape={"widths": (4, 20, 20, 2), "seed": 0},
        **_FORMULA,
    ),
    Experiment(
        name="bimt-feature-sharing",
        summary="Three outputs that share squares: (x1², x1² + x2², x1² + x2² + x3²).",
        data="feature-sharing",
        data_seed=4,
        shape={"widths": (3, 20, 20, 3), "seed": 4},
        **_FORMULA,
    ),
    Experiment(
        name="bimt-compositionality",
        summary="Squares that a root needs: √((x1 − x2)² + (x3 − x4)²).",
        data="compositionality",
        data_seed=3,
        shape={"widths": (4, 20, 20, 20, 20, 1), "seed": 3},
        **_FORMULA | {"strength": ((0.0, 1e-3), (0.25, 3e-3))},
    ),
    Experiment(
        name="bimt-two-moons",
        summary="Points on two half circles, told apart.",
        data="two moons",
        data_seed=1,
        shape={"widths": (2, 20, 20, 2), "seed": 2},
        lr=2e-3,
        steps=10_001,
        strength=((0.0, 1e-3), (5000 / 10_001, 1e-2)),
        per_distance=1.0,
        gap=0.2,
        reduction="sum",
        top_k=10,
    ),
    Experiment(
        name="bimt-modular-addition",
        summary="a + b mod 59, both numbers embedded at the same places.",
        data="modular addition",
        data_seed=4,
        shape={"widths": (64, 50, 50, 59), "embedding": 59, "in_fold": 2, "seed": 4},
        lr=1e-3,
        steps=20_000,
        strength=((0.0, 0.1), (0.25, 1.0), (0.75, 0.1)),
        per_distance=2.0,
        gap=0.5,
        reduction="mean",
        top_k=30,
        in_double=True,
    ),
    Experiment(
        name="bimt-s4",
        summary="Products of permutations of four things.",
        data="permutations",
        data_seed=1,
        shape={"widths": (64, 50, 50, 24), "embedding": 24, "in_fold": 2, "seed": 1},
        lr=2e-3,
        steps=20_000,
        strength=((0.0, 1.0),),
        per_distance=1.0,
        gap=0.5,
        reduction="mean",
        top_k=30,
    ),
    Experiment(
        name="bimt-digits",
        summary="Handwritten digits of 8 × 8 pixels.",
        data="digits",
        shape={"widths": (64, 100, 100, 10), "seed": 1},
        steps=10_000,
        **_IMAGES,
    ),
    Experiment(
        name="bimt-mnist",
        summary="Handwritten digits of 28 × 28 pixels, from the four MNIST files.",
        data="MNIST",
        shape={"widths": (784, 100, 100, 10), "seed": 1},
        steps=40_000,
        from_files=True,
        **_IMAGES,
    ),
    Experiment(
        name="bimt-in-context",
        summary="A transformer that infers w from (x1, w·x1) and answers w·x2.",
        data="in-context regression",
        data_seed=1,
        kind="transformer",
        shape={
            "order": "sfsf",
            "d_model": 32,
            "d_mlp": 128,
            "mlp": "gelu_new",
            "positions": "none",
            "attn_bias": True,
            "mlp_bias": True,
            "unembed_bias": True,
            "seed": 1,
        },
        lr=1e-3,
        steps=40_000,
        strength=((0.0, 1e-3), (0.25, 1e-2), (0.75, 1e-1)),
        per_distance=2.0,
        gap=0.5,
        reduction="mean",
        top_k=20,
        in_double=True,
    ),
)


def experiment_names(*, from_files: bool = False) -> tuple[str, ...]:
    """The names `train` knows.

    Args:
        from_files: those too whose data the user must have.
    """
    return tuple(known.name for known in _EXPERIMENTS if from_files or not known.from_files)


def experiment(name: str) -> Experiment:
    """One experiment.

    Raises:
        UnknownModelError: none of that name.
    """
    for known in _EXPERIMENTS:
        if known.name == name:
            return known
    raise UnknownModelError(
        f"no experiment {name[:40]!r}: there are {', '.join(experiment_names(from_files=True))}"
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    """An experiment as it is to be run.

    Args:
        seed: of the initial weights; the data stay. None = as published.
        steps: fewer than published; the schedule of λ shrinks with them, the time between swaps does not.
        folder: of the data, where they are the user's.

    Raises:
        UnknownModelError: no experiment of that name.
        ConfigError: no such variant, or data files missing or not asked for.
    """

    name: str
    variant: str = "bimt"
    seed: int | None = None
    steps: int | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        experiment(self.name)  # refuses a name that it does not know
        if self.variant not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise ConfigError(f"no variant {self.variant[:40]!r}: there are {known}")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps must be a whole number from 1 up, not {self.steps}")
        if self.folder is not None and not self.experiment.from_files:
            raise ConfigError(
                f"{self.name} reads no files of yours, but is given {self.folder[:80]!r}"
            )
        if self.seed is not None and not 0 <= self.seed < 2**31:
            raise ConfigError(
                f"seed must be a whole number from 0 to {2**31 - 1:,}, not {self.seed}"
            )

    @property
    def experiment(self) -> Experiment:
        """What is run."""
        return experiment(self.name)

    @property
    def n_steps(self) -> int:
        """Steps that are taken in all."""
        published = self.experiment.steps
        return published if self.steps is None else min(self.steps, published)

    @property
    def model_seed(self) -> int:
        """What the initial weights are drawn by."""
        return self.experiment.shape["seed"] if self.seed is None else self.seed

    def record(self) -> dict[str, Any]:
        """What tells one request from another."""
        shown = {"recipe": self.name, "variant": self.variant}
        return shown | {"seed": self.model_seed, "steps": self.n_steps}
