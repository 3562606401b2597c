"""A probe that always fails."""

from tests.probes.planted.size_of_weights import SizeOfWeights


class Failing(SizeOfWeights):
    name = "failing"

    def run(self, model, data, config, progress=None):
        raise ZeroDivisionError("planted: nothing to divide by")


PROBE = Failing()
