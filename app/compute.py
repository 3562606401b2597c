"""From a view to its attention maps: which runs each kind of view needs, within the dashboard's memory."""

from collections.abc import Callable
from dataclasses import replace

from app.jobs import Report
from app.state import View
from workbench import attention
from workbench.attention import AttentionMaps
from workbench.errors import BudgetError, PromptError, UnsupportedError
from workbench.models.protocol import Model
from workbench.runs import Run, run, to_batch

ModelAt = Callable[[int | None], Model]
SITES = {"value-weighted": ("pattern", "v"), "scores": ("scores",)}


def view_maps(view: View, model_at: ModelAt, budget: int, report: Report) -> AttentionMaps:
    """The maps of a view.

    Args:
        model_at: the view's model at a training step.
        budget: most bytes that the maps may take.
        report: is told what happens now.

    Raises:
        PromptError: a prompt that is empty, too long or cannot be spelled.
        BudgetError: more positions than the budget holds; says how many fit.
    """
    view.check()
    model = model_at(view.step)
    if n_heads(model) == 0:
        what = "no layers" if model.cfg.n_layers == 0 else "no attention in any layer"
        raise UnsupportedError(f"{model.name} has {what}, hence no heads")
    prompt = view.prompts if view.kind == "mean" else view.prompt
    if view.kind == "mean":
        # Reads every line before any is run, and names a bad one by its number.
        to_batch(model, prompt)
    _check_size(model, prompt, budget)

    def at(other: Model, text: str | list[str]) -> Run:
        report(f"Running {other.name}")
        return run(other, text, sites=SITES.get(view.kind, ("pattern",)), budget=2 * budget)

    if view.kind == "difference":
        if not view.other:
            raise PromptError("the second prompt is empty: write the prompt to subtract")
        _check_size(model, view.other, budget)
        after = attention.pattern_maps(at(model, prompt))
        maps = attention.difference_maps(after, attention.pattern_maps(at(model, view.other)))
        return replace(maps, title=f"{model.name}, first prompt − second prompt")
    if view.kind == "training":
        after = attention.pattern_maps(at(model, prompt))
        report(f"Loading {view.model} at step {view.before}")
        before = attention.pattern_maps(at(model_at(view.before), prompt))
        maps = attention.difference_maps(after, before)
        title = f"{view.model}, {_step(view.step)} − {_step(view.before)}"
        return replace(maps, title=title)
    makers: dict[str, Callable[[Run], AttentionMaps]] = {
        "pattern": attention.pattern_maps,
        "value-weighted": attention.value_weighted_maps,
        "scores": attention.score_maps,
        "mean": attention.mean_maps,
    }
    result = at(model, prompt)
    report("Collecting the heads")
    return makers[view.kind](result)


def left_out(view: View, model: Model, n_shown: int) -> tuple[int, str]:
    """Tokens of the longest prompt, and in a sentence what of the prompts the maps do not show."""
    texts = {"mean": view.prompts, "difference": [view.prompt, view.other]}
    lengths = [model.to_tokens(text).shape[1] for text in texts.get(view.kind, [view.prompt])]
    if view.kind == "mean" and min(lengths) < max(lengths):
        note = f"All prompts are cut to the {min(lengths)} tokens of the shortest of them."
        return max(lengths), note
    unpaired = sum(lengths) - 2 * n_shown
    if view.kind == "difference" and unpaired:
        first, second = lengths[0] - n_shown, lengths[1] - n_shown
        note = f"Left out, without a counterpart: {first} tokens of the first prompt, {second} of the second."
        return lengths[0], note
    return max(lengths), ""


def _step(step: int | None) -> str:
    return "finished" if step is None else f"step {step}"


def n_heads(model: Model) -> int:
    """Heads of all layers together."""
    return sum(model.n_heads_in(layer) for layer in range(model.cfg.n_layers))


def _check_size(model: Model, prompt: str | list[str], budget: int) -> None:
    """Estimate before running: a long prompt must not take the server's memory."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    n_pos = max(model.to_tokens(text).shape[1] for text in prompts)
    needed = 4 * n_heads(model) * n_pos**2 * len(prompts)
    if needed > budget:
        most = int((budget / (4 * n_heads(model) * len(prompts))) ** 0.5)
        raise BudgetError(
            f"{n_pos} tokens in {n_heads(model)} heads need {needed / 1e9:.1f} GB and the dashboard gives a "
            f"view {budget / 1e9:.1f} GB: shorten the prompt to about {most} tokens"
        )
