"""What a recipe's folder holds: a finished model, a run that can go on, nothing, or something else.

<out>/run.json    what was asked for, written before the first step: {"recipe", "seed", "steps"}
      card.json   written last; a folder with a card is finished
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.training.recipes import Recipe

RUN_FILE = "run.json"
STATE_FILE = "training-state.safetensors"


def is_finished(chosen: "Recipe", out: Path) -> bool:
    """Whether a folder holds the finished model that is asked for; False where it is to be trained or finished.

    Raises:
        ConfigError: it holds another model, or weights of which nothing says where they come from.
        CheckpointError: its card or record is broken.
    """
    from workbench.models.catalog import MAX_CARD_BYTES
    from workbench.models.files import read_json

    if (out / "card.json").is_file():
        card = read_json(out / "card.json", limit=MAX_CARD_BYTES)
        made_with = card.get("made_with")
        steps = made_with.get("steps") if isinstance(made_with, dict) else None
        found = {"recipe": card.get("recipe"), "seed": card.get("seed"), "steps": steps}
        _compare(out, "a finished model", found, asked(chosen))
        return (out / "model.safetensors").is_file()
    if (out / RUN_FILE).is_file():
        _compare(out, "a run", read_json(out / RUN_FILE), asked(chosen))
    elif (out / "model.safetensors").exists():
        raise ConfigError(
            f"{out} holds a model without a record of the recipe that made it: choose another folder (--out)"
        )
    return False


def is_trained(out: Path) -> bool:
    """Whether every step was taken: the config is written after the weights, the state removed after both."""
    is_whole = all((out / name).is_file() for name in ("model.safetensors", "config.json"))
    return is_whole and not (out / STATE_FILE).exists()


def asked(chosen: "Recipe") -> dict[str, Any]:
    """What tells one request from another."""
    return {
        "recipe": chosen.name,
        "seed": chosen.training.seed,
        "steps": chosen.training.steps,
    }


def write_request(chosen: "Recipe", out: Path) -> None:
    """Put on record what a folder is for, before it holds anything else."""
    from workbench.writing import write_atomically

    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / RUN_FILE, json.dumps(asked(chosen)))


def finish(chosen: "Recipe", out: Path) -> None:
    """Store all weights as float16, as the bundled ones are, and measure exactly those; may be repeated.

    Only recipes do: their models are copied into the package, whose size is limited. Runs of plans keep the
    precision that they are trained in, since weights below 6e-8, as sparse networks have, would become 0.
    """
    import torch

    from workbench.models.checkpoints import load_checkpoint, save_weights, weights_path
    from workbench.models.files import checkpoint_steps
    from workbench.training.card import write_card

    for step in (*checkpoint_steps(out), None):
        model = load_checkpoint(out, step=step)
        save_weights(model, weights_path(out, step), dtype=torch.float16)
    write_card(out, chosen)


def _compare(out: Path, what: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if any(found.get(name) != value for name, value in wanted.items()):
        raise ConfigError(
            f"{out} holds {what} of {_shown(found)}, not of {_shown(wanted)}: choose another folder (--out)"
        )


def _shown(request: dict[str, Any]) -> str:
    return ", ".join(f"{name} {request.get(name)!r:.40}" for name in ("recipe", "seed", "steps"))
