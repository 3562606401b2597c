"""A probe that kills its process, as the system does when memory runs out.

With the environment's PLANTED_DEATH, a file that remembers it, only the first time.
"""

import os
import signal
from pathlib import Path

from probes.contract import silent
from tests.probes.planted.size_of_weights import SizeOfWeights


class Deadly(SizeOfWeights):
    name = "deadly"

    def run(self, model, data, config, progress=silent):
        died = Path(os.environ.get("PLANTED_DEATH", "/nowhere"))
        if not died.exists():
            if died.parent.is_dir() and died.name != "nowhere":
                died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(model, data, config, progress)


PROBE = Deadly()
