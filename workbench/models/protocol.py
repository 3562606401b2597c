"""What every analysis may rely on, whichever library a model came from.

Our own `Transformer` and the adapter around TransformerLens' bridge both satisfy `Model`. An analysis that
needs more says so and fails by name on a model that lacks it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from workbench.models.tokenizer import Tokenizer
from workbench.sites import Site

HookFn = Callable[..., Tensor | None]


@dataclass(frozen=True)
class Certificate:
    """How far the logits are from those of the source model, on one fixed probe prompt.

    Args:
        source: what the logits were compared with.
        max_logit_error: largest absolute difference over all positions and tokens.
        max_logit: largest absolute logit of the source, the scale of the error.
    """

    source: str
    max_logit_error: float
    max_logit: float
    n_tokens: int

    def __str__(self) -> str:
        error = self.max_logit_error
        return (
            f"{f'within {error:.1e} of' if error else 'identical to'} {self.source} "
            f"({self.n_tokens} tokens, values up to {self.max_logit:.1f})"
        )


class Config(Protocol):
    """The shape of a model. Counts that differ between layers are asked of `Model.n_heads_in`."""

    @property
    def n_layers(self) -> int: ...  # noqa: D102
    @property
    def n_heads(self) -> int: ...  # noqa: D102
    @property
    def n_kv_heads(self) -> int | None: ...  # noqa: D102
    @property
    def d_model(self) -> int: ...  # noqa: D102
    @property
    def d_head(self) -> int | None: ...  # noqa: D102
    @property
    def d_vocab(self) -> int: ...  # noqa: D102
    @property
    def d_out(self) -> int: ...  # noqa: D102
    @property
    def n_ctx(self) -> int: ...  # noqa: D102
    @property
    def window(self) -> int | None: ...  # noqa: D102
    @property
    def causal(self) -> bool: ...  # noqa: D102
    @property
    def positions(self) -> str: ...  # noqa: D102
    @property
    def parallel(self) -> bool: ...  # noqa: D102
    @property
    def norm_position(self) -> str: ...  # noqa: D102
    @property
    def normalization_type(self) -> str | None: ...  # noqa: D102
    @property
    def attn_only(self) -> bool: ...  # noqa: D102


@runtime_checkable
class Model(Protocol):
    """A transformer with hooks, weights by their field names, and a tokenizer.

    `lock` must be held around every run: hooks are state of the module, so another thread's ablation
    would otherwise change your logits.
    """

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def cfg(self) -> Any:
        """Its shape: at least a `Config`."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None for models of bare numbers."""
        ...

    @property
    def certificate(self) -> Certificate | None:
        """How far it is from its source; None where it is its own source."""
        ...

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held by every run."""
        ...

    @property
    def blocks(self) -> Any:
        """Layers with their weights: `blocks[layer].attn.W_Q`."""
        ...

    @property
    def hook_dict(self) -> dict[str, Any]:
        """Every hook point by name."""
        ...

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """Token embedding."""
        ...

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab_out"]:
        """Unembedding."""
        ...

    def n_heads_in(self, layer: int) -> int:
        """Heads of one layer; 0 where it has no attention."""
        ...

    def site_hook(self, site: Site) -> str:
        """The hook that carries a site; SiteError where this model has none."""
        ...

    def to_tokens(self, prompt: str) -> Int[Tensor, "1 pos"]:
        """The prompt's tokens, with the special tokens that the model's own tokenizer adds."""
        ...

    def __call__(
        self,
        tokens: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab_out"]:
        """Logits; `attention_mask` is 0 at padding, which stands on the right."""
        ...

    def readout(
        self, stream: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch d_vocab_out"]:
        """The logits if the stream ended here; UnsupportedError where it cannot be read so."""
        ...

    def hooks(self, fwd_hooks: Sequence[tuple[str, HookFn]]) -> AbstractContextManager[Any]:
        """Run with these hooks attached; each is called as `fn(activation, hook=point)`."""
        ...
