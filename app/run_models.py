"""What of a run the other pages open: its model once it has finished, until then its newest weights.

The weights of one step are a model by themselves, named by their file as `workbench.load` takes it: a name that
stays what it is while the run goes on, and once it has finished.
"""

from pathlib import Path

from workbench.models import ModelInfo
from workbench.models.files import checkpoint_steps, step_name, step_of
from workbench.training.run_folder import RunFolder
from workbench.training.task_kinds import TASK_KINDS


def why_not(kind: str, task: str) -> str:
    """Why the other pages cannot show a network of a kind that learns a task; empty where they can."""
    if kind != "transformer":
        return "an MLP has no attention, tokens or residual stream, which the other pages are about"
    if not TASK_KINDS[task].has_tokenizer:
        return "it reads numbers, and the other pages begin with a prompt"
    return ""


def newest_weights(folder: Path) -> str | None:
    """The name of the newest weights that training has left in a run's folder; None before there are any."""
    newest = max(checkpoint_steps(folder), default=0)
    return _name(folder, newest) if newest else None


def run_of(name: str) -> str | None:
    """The name of the run that a name of weights would be of; None where it is none of weights."""
    path = Path(name)
    return None if step_of(path.name) is None else path.parent.parent.name


def weights_info(folder: RunFolder, name: str) -> ModelInfo | None:
    """What is known of weights before they are loaded; None where the run keeps none of that name.

    Raises:
        CheckpointError: a broken plan.
    """
    step, plan = step_of(Path(name).name), folder.plan
    if step not in checkpoint_steps(folder.path) or why_not(plan.network_kind, plan.task):
        return None
    # Compared as a whole: no other spelling of the path, and none that leads elsewhere.
    if name != _name(folder.path, step):
        return None
    summary = f"{plan.name}: trained here on {plan.task}, at step {step:,} of {plan.steps:,}"
    return ModelInfo(name, "own", True, None, summary)


def _name(folder: Path, step: int) -> str:
    return str(folder / "checkpoints" / step_name(step))
