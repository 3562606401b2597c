"""A probe that kills its process, as the system does when memory runs out."""

import os
import signal

from tests.probes.planted.size_of_weights import SizeOfWeights


class Deadly(SizeOfWeights):
    name = "deadly"

    def run(self, model, data, config, progress=None):
        os.kill(os.getpid(), signal.SIGKILL)


PROBE = Deadly()
