"""A model's blocks, called one by one with what each is given beside the stream: positions and masks.

    onward(layer, x) = readout(block_L-1(… block_layer(x)))

So what lies before a change need not be computed again: everything up to it is the same as it was.
"""

from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.models.protocol import Model


class Blocks:
    """The blocks of a model on one prompt; the stream that enters them may have any number of rows.

    Whoever calls them holds `model.lock`, and hooks of the model act as in any run.

    Args:
        tokens: are run once, to learn what each block is given.
    """

    def __init__(self, model: Model, tokens: Int[Tensor, "1 pos"]) -> None:
        self.model = model
        self.modules = list(getattr(model, "bridge", model).blocks)
        self._given: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        with ExitStack() as watched, model.lock, torch.no_grad():
            for layer, module in enumerate(self.modules):
                handle = module.register_forward_pre_hook(self._keeper(layer), with_kwargs=True)
                watched.callback(handle.remove)
            model(tokens)

    def _keeper(self, layer: int) -> Any:
        def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._given[layer] = (args[1:], kwargs)

        return keep

    def call(self, layer: int, x: Float[Tensor, "row pos d_model"]) -> Tensor:
        """The stream after one block."""
        args, kwargs = self._given[layer]
        after = self.modules[layer](x, *args, **kwargs)
        return after[0] if isinstance(after, tuple) else after

    def onward(
        self, layer: int, x: Float[Tensor, "row pos d_model"], at: slice = slice(None)
    ) -> Float[Tensor, "row read d_vocab_out"]:
        """The logits when this stream enters a layer, at some positions."""
        for later in range(layer, len(self.modules)):
            x = self.call(later, x)
        return self.model.readout(x[:, at])
