"""Where a model is to live, and who is told of slow steps on the way."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from workbench.errors import ConfigError

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """Device and dtype of a model to be loaded; `progress` gets one line per slow step."""

    device: torch.device
    dtype: torch.dtype
    progress: Progress

    @classmethod
    def named(cls, device: str, dtype: str, progress: Progress | None) -> "Target":
        """From a user's words.

        Raises:
            ConfigError: a device or dtype that does not exist here.
        """
        if dtype not in DTYPES:
            raise ConfigError(f"no dtype {str(dtype)[:40]!r}: there are {', '.join(DTYPES)}")
        try:
            place = torch.device(device)
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0][:120]
            raise ConfigError(
                f"no device {str(device)[:40]!r} here ({reason}): use 'cpu'"
            ) from error
        if place.type == "meta":
            raise ConfigError("the device 'meta' holds no numbers: use 'cpu'")
        return cls(place, DTYPES[dtype], progress or (lambda line: None))
