"""`python -m studies.term_importance` makes every number and the figure anew."""

from studies.term_importance.study import main

main()
