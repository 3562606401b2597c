"""The probes that there are, in the order of a report; each is imported when it is first asked for."""

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from probes.contract import Probe

# A probe named "a-b" is the PROBE of probes/a_b.py.
PROBES = (
    "probes.residual_norms",
    "probes.head_behaviours",
    "probes.copying_eigenvalues",
    "probes.composition",
    "probes.qk_geometry",
    "probes.positional_kernels",
    "probes.top_circuit_entries",
    "probes.skip_trigrams",
    "probes.direct_logit_attribution",
    "probes.logit_lens",
    "probes.order_spectrum",
    "probes.in_context_learning",
    "probes.head_ablation",
    "probes.neuron_statistics",
    "probes.linear_probes",
    "probes.modularity_wiring",
)


def probe_names() -> tuple[str, ...]:
    """Every name, in order; nothing is imported."""
    return tuple(module.rpartition(".")[2].replace("_", "-") for module in PROBES)


def get_probe(name: str) -> "Probe":
    """A probe by its name.

    Raises:
        ConfigError: no such probe; the message lists what there is.
    """
    modules = dict(zip(probe_names(), PROBES, strict=True))
    if name not in modules:
        near = difflib.get_close_matches(str(name)[:100], modules, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no probe {str(name)[:60]!r}. {hint}There are {', '.join(modules)}")
    probe: Probe = import_module(modules[name]).PROBE
    return probe


def named_probes(names: str) -> tuple["Probe", ...]:
    """ "all", or names with commas between them, in the order of the report.

    Raises:
        ConfigError: an unknown name, or none at all.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if wanted == ["all"]:
        return tuple(map(get_probe, probe_names()))
    if not wanted:
        raise ConfigError(f"no probes: name some of {', '.join(probe_names())}, or all")
    chosen = {name: get_probe(name) for name in wanted}
    return tuple(chosen[name] for name in probe_names() if name in chosen)
