"""What a report is asked to hold, from a command's words or from a file of YAML or TOML.

models: [attn-2l, "runs/*/"]         probes: all
data: stdlib                         workers: 2        memory: 4GB       engine: local
out: report
settings: {head-behaviours: {n_prompts: 32}}
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from probes.data import read_data
from probes.plan import Asked
from probes.registry import named_probes
from probes.sources import read_sources
from workbench.errors import ConfigError

MAX_FILE_BYTES = 1 << 20
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Request:
    """A report, in words.

    Args:
        probes: names with commas between them, or "all".
        settings: fields of probes' configs, by the probe's name.
        address: of a Ray cluster; None for one of this machine.
        out: folder of the results and the report.

    Raises:
        ConfigError: a value that cannot be meant.
    """

    models: tuple[str, ...]
    probes: str = "all"
    data: str = "stdlib"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: int | None = None
    memory: str | int | None = None
    engine: str = "local"
    address: str | None = None
    out: str = "report"

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError(
                "no models: name some with --models, for example --models attn-2l,mlp-2l"
            )
        if self.engine not in ENGINES:
            raise ConfigError(f"engine must be {' or '.join(ENGINES)}, not {self.engine!r:.40}")
        if not self.out.strip() or "\0" in self.out:
            raise ConfigError(f"out must be a folder, not {self.out!r:.40}")
        if self.address is not None and self.engine != "ray":
            raise ConfigError("an address is of a Ray cluster: it needs --engine ray")

    def asked(self) -> Asked:
        """The models, probes and data themselves.

        Raises:
            WorkbenchError: one of them does not exist.
        """
        probes = named_probes(self.probes)
        return Asked(read_sources(self.models), probes, read_data(self.data), self.settings)


def read_request_file(path: Path) -> dict[str, Any]:
    """The fields of a Request that a file gives.

    Raises:
        ConfigError: missing, of another kind, broken, or with fields or values of no meaning.
    """
    if path.suffix not in (".yaml", ".yml", ".toml"):
        raise ConfigError(f"no plan in {path.name!r}: plans are .yaml or .toml files")
    if not path.is_file():
        raise ConfigError(f"no plan at {path}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is over {MAX_FILE_BYTES >> 10} KiB: no plan is that large")
    try:
        text = path.read_text(encoding="utf-8")
        given = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path} must hold names and values, not {type(given).__name__}")
    known = [one.name for one in fields(Request)]
    if unknown := [str(name) for name in given if name not in known]:
        raise ConfigError(f"{path}: no {unknown[0][:40]!r} in a plan: there are {', '.join(known)}")
    return {name: _checked(path, name, value) for name, value in given.items()}


def _checked(path: Path, name: str, value: Any) -> Any:
    """A value of the type that its field has."""
    if name in ("models", "probes"):
        listed = value.split(",") if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise ConfigError(f"{path}: {name} must be names, not {value!r:.60}")
        return tuple(listed) if name == "models" else ",".join(listed)
    if name == "settings":
        is_nested = isinstance(value, dict) and all(isinstance(one, dict) for one in value.values())
        if not is_nested:
            raise ConfigError(f"{path}: settings must be fields by probe, not {value!r:.60}")
        return value
    kinds = {"workers": (int,), "memory": (str, int)}.get(name, (str,))
    if type(value) not in kinds:
        raise ConfigError(f"{path}: {name} cannot be {value!r:.60}")
    return value
