"""A probe that kills its process, as the system does when memory runs out; once only, if a file says so."""

import os
import signal
from pathlib import Path

from tests.probes.planted.size_of_weights import SizeOfWeights


class Deadly(SizeOfWeights):
    name = "deadly"

    def run(self, model, data, config, progress=None):
        once = os.environ.get("PLANTED_DEATH")
        if once is None or not Path(once).exists():
            if once is not None:
                Path(once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(model, data, config)


PROBE = Deadly()
