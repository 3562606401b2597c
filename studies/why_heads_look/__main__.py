"""`python -m studies.why_heads_look` makes every number and the figure anew."""

from studies.why_heads_look.study import main

main()
