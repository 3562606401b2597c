"""What heads do: the badges that the viewer shows, and how behaviours form over training."""

from typing import Any

from workbench.heads import HeadScores, badges, head_scores
from workbench.models.protocol import Model

Badges = dict[str, list[dict[str, Any]]]
Curve = dict[str, list[float]]
CURVE_BEHAVIOURS = ("previous-token", "induction")
CURVE_PROMPTS = 4


def badge_table(model: Model) -> Badges:
    """The badges of every head that shows a behaviour, by `layer.head` label."""
    found = badges(head_scores(model))
    return {
        str(head): [
            {
                "label": badge.behaviour,
                "behaviour": badge.behaviour,
                "value": badge.value,
                "chance": badge.chance,
            }
            for badge in held
        ]
        for head, held in found.items()
    }


def best_scores(model: Model) -> dict[str, float]:
    """The highest score that any head reaches on each behaviour of the training curve."""
    scores: HeadScores = head_scores(model, n_prompts=CURVE_PROMPTS)
    return {name: scores.value(scores.best(name), name) for name in CURVE_BEHAVIOURS}
