"""Plans to begin with: every published experiment in all its variants, and small transformers.

    bimt-independence/bimt  bimt-independence/none …  induction-2l  induction-2l/bimt  small-text  in-context

An experiment's plan gives the very weights of `workbench train` with its name and variant. Those that read
files of the user's (bimt-mnist/bimt …) are plans once there is a folder: `preset(name, folder)`.
"""

from dataclasses import replace
from typing import Any

from workbench.errors import ConfigError
from workbench.training.experiments import (
    VARIANTS,
    Experiment,
    Variant,
    experiment,
    experiment_names,
)
from workbench.training.plan import MLPShape, Plan, Shape, TransformerShape


def all_presets() -> dict[str, Plan]:
    """Plans by name."""
    found = {
        f"{name}/{variant}": plan_of(experiment(name), variant)
        for name in experiment_names()
        for variant in VARIANTS
    }
    return found | {plan.name: plan for plan in _small_transformers()}


def preset(name: str, folder: str | None = None) -> Plan:
    """One plan by name, with the folder of the user's files where it reads any.

    Raises:
        ConfigError: none of that name.
        PlanError: it reads files, and no folder is given.
    """
    if name in (known := all_presets()):
        return known[name] if folder is None else replace(known[name], folder=folder)
    rest = [each for each in experiment_names(from_files=True) if f"{each}/bimt" not in known]
    asked = {f"{each}/{variant}": (each, variant) for each in rest for variant in VARIANTS}
    if name not in asked:
        listed = ", ".join([*known, *asked])
        raise ConfigError(f"no plan {name[:80]!r}: give a JSON file, or one of {listed}")
    return plan_of(experiment(asked[name][0]), asked[name][1], folder)


def plan_of(chosen: Experiment, variant: Variant, folder: str | None = None) -> Plan:
    """An experiment as a plan; its schedule that of its task, at its published strength."""
    has_lengths = variant in ("local", "bimt")
    plan = Plan(
        name=f"{chosen.name}/{variant}",
        task=chosen.data,
        network=_shape(chosen),
        folder=folder,
        data_seed=chosen.data_seed,
        steps=chosen.steps,
        seed=chosen.shape.get("seed", 0),
        batch_seed=0,
        lr=chosen.lr,
        precision="float64" if chosen.in_double else "float32",
        places="squares" if chosen.on_grid else "lines",
    )
    if variant == "none":
        return plan
    return replace(
        plan,
        wiring=max(value for _, value in chosen.strength),
        schedule="published",
        per_distance=chosen.per_distance if has_lengths else 0.0,
        gap=chosen.gap,
        reduction=chosen.reduction,
        last_distance=chosen.last_distance,
        swaps="greedy" if variant in ("swap", "bimt") else "none",
        swap_every=chosen.every,
        top_k=chosen.top_k,
        swap_inputs="inputs" not in chosen.fixed,
    )


def _shape(chosen: Experiment) -> Shape:
    shape = dict(chosen.shape)
    if chosen.kind == "transformer":
        biases = bool(shape.get("attn_bias", False))
        names = ("order", "d_model", "n_heads", "d_head", "d_mlp", "mlp", "norm", "positions")
        own: dict[str, Any] = {name: shape[name] for name in names if name in shape}
        return TransformerShape(
            **{"n_heads": 1} | own, biases=biases, unembed_bias=shape.get("unembed_bias", False)
        )
    widths, fold = shape["widths"], shape.get("in_fold", 1)
    own = {"hidden": tuple(widths[1:-1])}
    if "embedding" in shape:
        own["embedding"] = widths[0] // fold
    own |= {name: shape[name] for name in ("activation", "bias") if name in shape}
    return MLPShape(**own)


def _small_transformers() -> tuple[Plan, ...]:
    induction = Plan(
        name="induction-2l",
        task="repeats",
        network=TransformerShape(order="ss", d_model=64, n_heads=4, start="language model"),
        steps=1500,
        lr=3e-3,
        muon_lr=0.02,
        beta2=0.98,
        warmup=0.02,
        decay=0.3,
        clip=1.0,
    )
    modular: dict[str, Any] = {
        "wiring": 0.02,
        "per_distance": 1.0,
        "gap": 0.1,
        "reduction": "mean",
        "swaps": "assignment",
        "swap_every": 100,
    }
    text_shape = TransformerShape(
        order="ss", d_model=128, n_heads=4, n_ctx=128, d_vocab=1024, start="language model"
    )
    text = replace(
        induction,
        name="small-text",
        task="python text",
        network=text_shape,
        steps=2000,
        repeat_rows=1,
    )
    return (
        induction,
        replace(induction, name="induction-2l/bimt", **modular),
        text,
        replace(text, name="small-text/bimt", **modular),
    )
