"""Which fields of a plan apply to its task and network, and why the others do not."""

from dataclasses import fields
from typing import TYPE_CHECKING

from workbench.training.shapes import TransformerShape
from workbench.training.task_kinds import TASK_KINDS, TaskKind

if TYPE_CHECKING:
    from workbench.training.plan import Plan


def reasons(plan: "Plan") -> dict[str, str]:
    """Every field by name → why it does not apply; empty where it does."""
    kind = TASK_KINDS[plan.task]
    found = {each.name: "" for each in fields(plan)}
    found |= {f"network.{each.name}": "" for each in fields(plan.network)}
    found |= _of_task(plan, kind)
    found |= _of_mlp(kind) if plan.network_kind == "mlp" else _of_transformer(plan, kind)
    return found | _of_settings(plan)


def _of_task(plan: "Plan", kind: TaskKind) -> dict[str, str]:
    found: dict[str, str] = {}
    if not kind.reads_files:
        found["folder"] = f"{plan.task} reads no files of yours"
    if not kind.has_modulus:
        found["modulus"] = f"{plan.task} is not addition modulo p"
    if not kind.has_seed:
        found["data_seed"] = f"{plan.task} draws its batches by the run's own seed"
    if not kind.is_text:
        found["repeat_rows"] = f"{plan.task} is not a text"
    return found


def _of_mlp(kind: TaskKind) -> dict[str, str]:
    found = dict.fromkeys(("head_lasso", "decorrelation"), "a multilayer perceptron has no heads")
    found["muon_lr"] = "Muon is for the matrices inside a transformer's layers"
    if not kind.reads_tokens:
        found["network.embedding"] = "the task reads numbers, which are not embedded"
    return found


def _of_transformer(plan: "Plan", kind: TaskKind) -> dict[str, str]:
    shape = plan.network
    assert isinstance(shape, TransformerShape)
    found: dict[str, str] = {}
    order = shape.order
    if "s" not in order:
        no_heads = "this order has no attention"
        found |= dict.fromkeys(("head_lasso", "decorrelation"), no_heads)
        found |= dict.fromkeys(("network.n_heads", "network.d_head"), no_heads)
    elif shape.n_heads < 2:
        found["decorrelation"] = "one head has no other to be told apart from"
    if "f" not in order:
        no_mlp = "this order has no feed-forward layer"
        found |= dict.fromkeys(("clusterability", "network.d_mlp", "network.mlp"), no_mlp)
    if not order:
        found["muon_lr"] = "there are no matrices inside layers"
    if plan.precision == "float64":
        found["muon_lr"] = "Muon computes in float32"
    if not kind.is_text:
        found["network.d_vocab"] = "the task has tokens of its own"
    if kind.fixed_context:
        found["network.n_ctx"] = "the task has a length of its own"
    found["swap_inputs"] = "tokens have no places"
    if plan.task == "in-context regression":
        found["decorrelation"] = "heads are compared on tokens, and the task reads numbers"
    return found


def _of_settings(plan: "Plan") -> dict[str, str]:
    """Fields whose optimizer was not chosen, or whose regularizer is off."""
    found: dict[str, str] = {}
    if plan.optimizer == "sgd":
        found["beta2"] = "SGD keeps no squared gradients"
    else:
        found["momentum"] = "the optimizer is AdamW, whose momentum is 0.9"
    if plan.places == "lines":
        found["metric"] = "on a line both distances are the same"
    if plan.schedule != "piecewise":
        found["strengths"] = "the schedule is not piecewise"
    if not plan.wiring:
        names = ("schedule", "strengths", "per_distance", "last_distance")
        found |= dict.fromkeys(names, "the strength of wiring length is 0")
    if not plan.clusterability:
        found["clusters"] = "the strength of clusterability is 0"
    if plan.swaps == "none":
        found |= dict.fromkeys(("swap_every", "top_k", "swap_inputs"), "units do not trade places")
    elif plan.swaps == "assignment":
        found["top_k"] = "an assignment places all units"
    return found
