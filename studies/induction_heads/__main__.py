"""`python -m studies.induction_heads` makes every number and the figure anew."""

from studies.induction_heads.study import main

main()
