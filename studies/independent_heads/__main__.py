"""`python -m studies.independent_heads` makes every number and the figure anew; `--quick` tries it small."""

from studies.independent_heads.study import main

main()
