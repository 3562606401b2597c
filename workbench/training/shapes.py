"""The shape of a network, as a form sets it; how many inputs and outputs it has is the task's affair."""

from dataclasses import dataclass
from typing import Literal, get_args, no_type_check

from workbench.models.config import Mlp, Norm, Positions
from workbench.training.plan_fields import PlanError, check_fields, stated

Activation = Literal["silu", "relu", "tanh", "gelu"]
Start = Literal["noise", "language model"]


# Values are checked by the classes themselves, by the name of the field; a type checker would come before it.
@no_type_check
@dataclass(frozen=True, kw_only=True)
class MLPShape:
    """A multilayer perceptron: its hidden layers.

    Raises:
        PlanError: a value that cannot be meant.
    """

    hidden: tuple[int, ...] = stated(
        (20, 20), kind="wholes", unit="neurons", bounds=(1, 10_000), hint="of each hidden layer"
    )
    embedding: int = stated(
        32,
        kind="whole",
        unit="numbers",
        bounds=(1, 10_000),
        hint="into which a token is embedded, where the task reads tokens",
    )
    activation: Activation = stated(
        "silu", kind="choice", choices=get_args(Activation), hint="of the hidden neurons"
    )
    bias: bool = stated(True, kind="flag", hint="whether neurons have one")

    def __post_init__(self) -> None:
        check_fields(self, "network.")


@no_type_check
@dataclass(frozen=True, kw_only=True)
class TransformerShape:
    """A transformer; `order` spells its sublayers: s = self-attention, f = feed-forward.

    Raises:
        PlanError: a value that cannot be meant.
    """

    order: str = stated(
        "ss",
        kind="text",
        bounds=(0, 64),
        hint="its sublayers from below, s = self-attention, f = feed-forward; for example sfsf",
    )
    d_model: int = stated(
        64, kind="whole", unit="channels", bounds=(1, 4096), hint="of the residual stream"
    )
    n_heads: int = stated(4, kind="whole", unit="heads", bounds=(1, 256), hint="in each layer")
    d_head: int | None = stated(
        None,
        kind="whole",
        unit="neurons",
        bounds=(1, 4096),
        hint="of each head; empty = d_model / n_heads",
    )
    d_mlp: int | None = stated(
        None,
        kind="whole",
        unit="neurons",
        bounds=(1, 100_000),
        hint="of each feed-forward layer; empty = 4 d_model",
    )
    mlp: Mlp = stated(
        "gelu", kind="choice", choices=get_args(Mlp), hint="activation of feed-forward layers"
    )
    norm: Norm = stated(
        "none", kind="choice", choices=get_args(Norm), hint="of what each layer reads"
    )
    positions: Positions = stated(
        "shortformer",
        kind="choice",
        choices=get_args(Positions),
        hint="how places in the context are told apart; shortformer = added to queries and keys alone",
    )
    n_ctx: int = stated(
        64, kind="whole", unit="tokens", bounds=(1, 8192), hint="the longest context"
    )
    d_vocab: int = stated(
        1024,
        kind="whole",
        unit="tokens",
        bounds=(257, 65_536),
        hint="that a tokenizer is trained to have, where the task is a text",
    )
    biases: bool = stated(False, kind="flag", hint="whether heads and neurons have one")
    unembed_bias: bool = stated(True, kind="flag", hint="whether the logits have one")
    start: Start = stated(
        "noise",
        kind="choice",
        choices=get_args(Start),
        hint="initial weights: noise alone, or those from which language models learn circuits soon",
    )

    def __post_init__(self) -> None:
        check_fields(self, "network.")
        if set(self.order) - {"s", "f"}:
            raise PlanError("network.order", f"holds the letters s and f, not {self.order!r:.60}")
        if self.d_head is None and self.d_model % self.n_heads:
            raise PlanError(
                "network.n_heads",
                f"must divide d_model {self.d_model} unless d_head is given, not {self.n_heads}",
            )


Shape = MLPShape | TransformerShape
KINDS: dict[str, type[MLPShape] | type[TransformerShape]] = {
    "mlp": MLPShape,
    "transformer": TransformerShape,
}
