"""A small multilayer perceptron whose neurons have places, for training that shortens wires.

    x_0 = inputs at their places;   x_{l+1} = act(x_l @ W_l + b_l);   outputs = x_L, put back in order

Row p of `layers.0.W` belongs to the input at place p, which is input number `in_perm[p]`; column p of the
last one to the output at place p, number `out_perm[p]`. Units that trade places therefore change no output.
Both are integer buffers: no pruning, decay or count of parameters takes them for weights.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, no_type_check

import torch
from jaxtyping import Float, Int, Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.errors import CheckpointError, ConfigError, PromptError
from workbench.models.files import read_json
from workbench.models.layers import ACTIVATIONS
from workbench.writing import whole_file, write_atomically

FORMAT = "workbench-mlp-1"
MAX_LAYERS, MAX_WIDTH, MAX_PARAMS = 64, 1_000_000, 100_000_000
Activation = Literal["silu", "relu", "tanh", "gelu"]


# Values are checked by the class itself, which says what each may be; a type checker would come before it.
@no_type_check
@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Shape and kind of one multilayer perceptron.

    Args:
        widths: neurons of every layer, from the inputs to the outputs.
        seed: draws the initial weights.
        embedding: how many different tokens can be read; None = the inputs are numbers.
        in_fold: blocks of inputs (tokens, if they are embedded) that share one set of places.

    Raises:
        ConfigError: a value that cannot be meant; the message names it and its range.
    """

    widths: tuple[int, ...]
    activation: Activation = "silu"
    bias: bool = True
    seed: int = 0
    embedding: int | None = None
    in_fold: int = 1

    def __post_init__(self) -> None:
        widths = self.widths
        if not isinstance(widths, tuple) or not 2 <= len(widths) <= MAX_LAYERS + 1:
            raise ConfigError(
                f"widths must be a tuple of 2 to {MAX_LAYERS + 1} numbers of neurons, "
                f"for example (4, 20, 20, 2); not {widths!r:.60}"
            )
        for width in widths:
            _check_whole("every one of widths", width, 1, MAX_WIDTH)
        if self.activation not in get_args(Activation):
            known = ", ".join(get_args(Activation))
            raise ConfigError(f"activation must be one of {known}, not {self.activation!r:.60}")
        if not isinstance(self.bias, bool):
            raise ConfigError(f"bias must be true or false, not {self.bias!r:.60}")
        _check_whole("seed", self.seed, 0, 2**31 - 1)
        if self.embedding is not None:
            _check_whole("embedding", self.embedding, 1, MAX_WIDTH)
        _check_whole("in_fold", self.in_fold, 1, MAX_WIDTH)
        if widths[0] % self.in_fold:
            raise ConfigError(f"in_fold {self.in_fold} does not divide the {widths[0]} inputs")
        if self.n_params > MAX_PARAMS:
            raise ConfigError(
                f"widths {widths} ask for {self.n_params:,} parameters; the limit is {MAX_PARAMS:,}"
            )

    @property
    def n_layers(self) -> int:
        """Number of weight matrices, the embedding apart."""
        return len(self.widths) - 1

    @property
    def d_fold(self) -> int:
        """Inputs of one block: places of the input layer."""
        return self.widths[0] // self.in_fold

    @property
    def n_params(self) -> int:
        """Number of trained parameters."""
        total = sum(a * b for a, b in zip(self.widths, self.widths[1:], strict=False))
        total += sum(self.widths[1:]) if self.bias else 0
        return total + (self.embedding or 0) * self.d_fold

    def to_json(self) -> str:
        """This config as a JSON object, every field written out."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> "MLPConfig":
        """Read a config from plain values; lists become tuples.

        Raises:
            ConfigError: unknown or missing fields, or values out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(map(str, given)) - known):
            shown = ", ".join(name[:40] for name in unknown[:5])
            raise ConfigError(f"unknown config fields: {shown}. Known: {', '.join(sorted(known))}")
        if "widths" not in given:
            raise ConfigError("the config lacks widths")
        widths = given["widths"]
        return cls(**given | {"widths": tuple(widths) if isinstance(widths, list) else widths})


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(
            f"{name} must be a whole number from {low} to {high:,}, not {value!r:.60}"
        )


class Layer(nn.Module):
    """`act(x @ W + b)`."""

    def __init__(
        self, n_in: int, n_out: int, act_fn: Callable[[Tensor], Tensor], bias: bool
    ) -> None:
        super().__init__()
        self.act_fn = act_fn
        self.W = nn.Parameter(torch.empty(n_in, n_out))
        self.b = nn.Parameter(torch.empty(n_out)) if bias else None

    def forward(self, x: Float[Tensor, "batch source"]) -> Float[Tensor, "batch target"]:
        """The layer's neurons after their activation."""
        return self.act_fn(x @ self.W if self.b is None else torch.addmm(self.b, x, self.W))


class _Embed(nn.Module):
    def __init__(self, n_tokens: int, width: int) -> None:
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(n_tokens, width))


class MLP(nn.Module):
    """A multilayer perceptron; its state holds weights and, as integers, who stands at which place."""

    layers: Any  # an nn.ModuleList of Layer, which mypy would take for bare modules
    in_perm: Tensor
    out_perm: Tensor

    def __init__(self, cfg: MLPConfig, *, name: str = "mlp") -> None:
        super().__init__()
        self.cfg, self.name = cfg, name
        act_fn = torch.tanh if cfg.activation == "tanh" else ACTIVATIONS[cfg.activation]
        self.embed = _Embed(cfg.embedding, cfg.d_fold) if cfg.embedding else None
        self.layers = nn.ModuleList(
            Layer(n_in, n_out, act_fn if index < cfg.n_layers - 1 else _same, cfg.bias)
            for index, (n_in, n_out) in enumerate(zip(cfg.widths, cfg.widths[1:], strict=False))
        )
        self.register_buffer("in_perm", torch.arange(cfg.d_fold))
        self.register_buffer("out_perm", torch.arange(cfg.widths[-1]))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """torch's own scheme for linear layers, ±1/√inputs; standard normal embeddings."""
        if self.in_perm.is_meta:
            return
        generator = torch.Generator().manual_seed(self.cfg.seed)
        if self.embed is not None:
            self.embed.W_E.normal_(generator=generator)
        for layer in self.layers:
            bound = 1 / math.sqrt(layer.W.shape[0])
            for weight in layer.parameters():
                weight.uniform_(-bound, bound, generator=generator)

    def activations(self, x: Shaped[Tensor, "batch input"]) -> dict[str, Float[Tensor, "batch _"]]:
        """Every group of neurons, each in the order of its places: inputs, hidden 0, …, outputs.

        Args:
            x: numbers, one for each input; or `in_fold` tokens where the model embeds them.

        Raises:
            PromptError: another number of inputs, or numbers where tokens are read.
        """
        x = self._placed(x)
        found = {"inputs": x}
        for index, layer in enumerate(self.layers):
            x = layer(x)
            found["outputs" if index == self.cfg.n_layers - 1 else f"hidden {index}"] = x
        return found

    def forward(self, x: Shaped[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """The outputs in their own order, wherever they stand.

        Raises:
            PromptError: another number of inputs, or numbers where tokens are read.
        """
        x = self._placed(x)
        for layer in self.layers:
            x = layer(x)
        return x[:, self.out_perm.argsort()]

    def _placed(self, x: Tensor) -> Tensor:
        self._check_input(x)
        if self.embed is not None:
            x = self.embed.W_E[x]
        return x.reshape(len(x), self.cfg.in_fold, -1)[..., self.in_perm].flatten(1)

    def _check_input(self, x: Tensor) -> None:
        n_inputs = self.cfg.in_fold if self.cfg.embedding else self.cfg.widths[0]
        if x.shape[1] != n_inputs:
            raise PromptError(f"{self.name} reads {n_inputs} inputs, not {x.shape[1]}")
        if x.is_floating_point() == (self.embed is not None):
            kind = "token ids (whole numbers)" if self.embed is not None else "numbers (floats)"
            raise PromptError(f"{self.name} reads {kind}, not {x.dtype}")


def _same(x: Tensor) -> Tensor:
    return x


def save_mlp(model: MLP, folder: str | Path) -> Path:
    """Write config and state; each file appears whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(folder / "model.safetensors") as scratch:
        save_file(tensors, scratch, metadata={"format": "pt"})
    config = {"format": FORMAT, **asdict(model.cfg)}
    write_atomically(folder / "config.json", json.dumps(config, indent=1))
    return folder


def load_mlp(folder: str | Path) -> MLP:
    """Read what `save_mlp` wrote, in the precision in which it was saved.

    Raises:
        CheckpointError: a file is missing, broken, or holds another state than the config describes.
    """
    folder = Path(folder)
    values, path = read_json(folder / "config.json"), folder / "model.safetensors"
    if values.pop("format", None) != FORMAT:
        raise CheckpointError(
            f'{folder}/config.json is no MLP config: it lacks "format": "{FORMAT}"'
        )
    try:
        config = MLPConfig.from_dict(values)
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except ConfigError as error:
        raise CheckpointError(f"{folder}/config.json: {error}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    with torch.device("meta"):
        model = MLP(config, name=folder.name)
    _check_state(path, state, model.state_dict())
    model.load_state_dict(state, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_()
    return model.eval()


def _check_state(path: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if names := sorted(set(state) ^ set(expected)):
        verb = "lacks" if names[0] in expected else "has the unexpected"
        raise CheckpointError(f"{path} {verb} {names[0][:60]}")
    if len({tensor.dtype for tensor in state.values() if tensor.is_floating_point()}) > 1:
        raise CheckpointError(f"{path} mixes precisions")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            shape = list(expected[name].shape)
            raise CheckpointError(
                f"{path}: {name} is {list(tensor.shape)}; the config asks for {shape}"
            )
        if name.endswith("_perm"):
            if tensor.dtype != torch.int64 or not _is_permutation(tensor):
                raise CheckpointError(f"{path}: {name} is no permutation of 0 … {len(tensor) - 1}")
        elif not tensor.is_floating_point() or not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite numbers")


def _is_permutation(perm: Int[Tensor, " place"]) -> bool:
    return bool((perm.sort().values == torch.arange(len(perm))).all())
