"""What two fields of a plan must agree on; each alone is checked by its metadata (plan_fields.py)."""

from typing import TYPE_CHECKING

from workbench.training.plan_fields import PlanError
from workbench.training.plan_texts import points, rates
from workbench.training.shapes import Shape
from workbench.training.task_kinds import TASK_KINDS, TaskKind

if TYPE_CHECKING:
    from workbench.training.plan import Plan

MAX_STRENGTH, MAX_DECAY = 1e6, 100.0
STRENGTHS = (
    *("wiring", "l1", "head_lasso", "unit_lasso", "clusterability"),
    *("decorrelation", "channel_cost", "nested_dropout"),
)


def check_together(plan: "Plan") -> None:
    """Refuse fields that do not fit one another.

    Raises:
        PlanError: names the field that is to be changed.
    """
    if not isinstance(plan.network, Shape):
        raise PlanError(
            "network", f"must be an MLPShape or a TransformerShape, not {plan.network!r:.60}"
        )
    kind = TASK_KINDS[plan.task]
    if plan.network_kind not in kind.networks:
        known = " or ".join(kind.networks)
        raise PlanError(
            "network",
            f"must be of kind {known} for the task {plan.task!r}, not {plan.network_kind}",
        )
    if kind.reads_files and plan.folder is None:
        raise PlanError("folder", f"is missing: the task {plan.task!r} reads files of yours")
    if plan.warmup + plan.decay > 1:
        raise PlanError(
            "decay", f"and warmup must be at most 1 together, not {plan.warmup + plan.decay:g}"
        )
    if plan.reads_batches and plan.repeat_rows > (plan.batch_rows or 8):
        raise PlanError(
            "repeat_rows",
            f"must be at most the {plan.batch_rows or 8} rows of a batch, not {plan.repeat_rows}",
        )
    _check_strengths(plan)
    _check_schedule(plan, kind)
    if plan.parameter_decay is not None:
        rates(plan.parameter_decay, "parameter_decay", MAX_DECAY)


def _check_strengths(plan: "Plan") -> None:
    from workbench.training.applicable import reasons

    for name, why in reasons(plan).items():
        if why and name in STRENGTHS and getattr(plan, name):
            raise PlanError(name, f"must be 0 here: {why}")


def _check_schedule(plan: "Plan", kind: TaskKind) -> None:
    if plan.schedule == "published" and not kind.is_published:
        known = ", ".join(n for n, k in TASK_KINDS.items() if k.is_published)
        raise PlanError(
            "schedule",
            f"must be constant for the task {plan.task!r}, or piecewise: published are those of {known}",
        )
    jumps = None if plan.strengths is None else points(plan.strengths, "strengths", MAX_STRENGTH)
    if plan.schedule != "piecewise" or not plan.wiring:
        return
    if jumps is None:
        raise PlanError("strengths", "is missing: give them as 0:0.001, 0.25:0.01")
    if plan.wiring != (largest := max(strength for _, strength in jumps)):
        raise PlanError(
            "wiring", f"must be {largest:g}, the largest of the strengths, not {plan.wiring:g}"
        )
