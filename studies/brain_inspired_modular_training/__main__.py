"""`python -m studies.brain_inspired_modular_training` makes every number and the figure anew."""

from studies.brain_inspired_modular_training.study import main

# Worker processes import this file too.
if __name__ == "__main__":
    main()
