"""`python -m studies.batch_scaling` measures every number anew; `--quick` tries it small."""

from studies.batch_scaling.study import main

# Worker processes may import this file too.
if __name__ == "__main__":
    main()
