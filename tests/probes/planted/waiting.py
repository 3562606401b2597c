"""A probe that tells its process in the file PLANTED_WAIT and waits to be killed; asked again, it answers."""

import os
import time
from pathlib import Path

from probes.contract import silent
from tests.probes.planted.size_of_weights import SizeOfWeights

PATIENCE = 120


class Waiting(SizeOfWeights):
    name = "waiting"

    def run(self, model, data, config, progress=silent):
        told = Path(os.environ["PLANTED_WAIT"])
        if not told.exists():
            scratch = told.with_suffix(".scratch")
            scratch.write_text(str(os.getpid()))
            scratch.replace(told)
            time.sleep(PATIENCE)
            raise TimeoutError("planted: nobody killed this process")
        return super().run(model, data, config, progress)


PROBE = Waiting()
