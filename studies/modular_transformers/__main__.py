"""`python -m studies.modular_transformers` makes every number and the figure anew; `--quick`, a short form."""

import sys

from studies.modular_transformers.study import main, quick

quick() if "--quick" in sys.argv[1:] else main()
