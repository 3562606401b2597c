"""`python -m studies.zero_and_one_layer` makes every number and the figure anew."""

from studies.zero_and_one_layer.study import main

main()
