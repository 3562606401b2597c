"""`python -m studies.residual_ensembles` makes every number and the figure anew."""

from studies.residual_ensembles.study import main

main()
