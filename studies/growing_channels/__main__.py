"""`python -m studies.growing_channels` makes every number and the figure anew; `--quick` tries it small."""

from studies.growing_channels.study import main

main()
