"""Getting a model: `load("induction-2l")`, and `list_models()` for what there is."""

from typing import TYPE_CHECKING, Any

from workbench.models.catalog import ModelInfo, list_models, own_model, read_card

if TYPE_CHECKING:
    from workbench.models.loading import load

__all__ = ["ModelInfo", "list_models", "load", "own_model", "read_card"]


def __getattr__(name: str) -> Any:
    """`load`, imported when first asked for: it brings torch with it, which the names do not need."""
    if name == "load":
        from workbench.models.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
