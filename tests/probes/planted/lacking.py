"""A probe that a machine of a cluster cannot even begin with: the task itself fails there, not the probe."""

from tests.probes.planted.size_of_weights import SizeOfWeights


class Lacking(SizeOfWeights):
    name = "lacking"


def answer(given, data):
    """What the engine has each machine do, but for this probe."""
    if given["probe"] == "lacking":
        raise ImportError("No module named 'probes'")
    from probes.ray_engine import answer as real

    return real(given, data)


PROBE = Lacking()
