"""What heads do: the badges that the viewer shows, and how behaviours form over training."""

from typing import Any

from workbench.heads.behaviours import HeadScores, badges, head_scores
from workbench.models.protocol import Model
from workbench.sites import Head

Badges = dict[str, list[dict[str, Any]]]
Curve = dict[str, list[float]]
CURVE_BEHAVIOURS = ("previous-token", "induction")
CURVE_PROMPTS = 4
MANY_HEADS = 100
# Short enough to stand under a small thumbnail.
LABELS = {
    "previous-token": "prev. token",
    "duplicate-token": "dup. token",
    "current-token": "own token",
    "first-token": "first token",
}
NOTABLE = ("induction", "previous-token", "duplicate-token")


def badge_table(model: Model) -> Badges:
    """The badges of every head that shows a behaviour, by `layer.head` label."""
    n_heads = sum(model.n_heads_in(layer) for layer in range(model.cfg.n_layers))
    # Time grows with heads times squared length: a large model is scored on fewer and shorter repeats.
    n_prompts, n_pos = (8, 64) if n_heads > MANY_HEADS else (16, None)
    found = badges(head_scores(model, n_prompts=n_prompts, n_pos=n_pos))
    return {
        str(head): [
            {
                "label": LABELS.get(badge.behaviour, badge.behaviour),
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


def notable_head(card: dict[str, Any]) -> Head | None:
    """The head of a card that most clearly does something: the best at induction, else at what is simpler."""
    rows = [row for row in card.get("heads") or [] if row.get("low", 0) > 2 * row.get("chance", 1)]
    for behaviour in NOTABLE:
        found = [row for row in rows if row.get("behaviour") == behaviour and row["value"] >= 0.3]
        if found:
            best = max(found, key=lambda row: row["value"])
            return Head(int(best["layer"]), int(best["head"]))
    return None
