"""Other names for the tokens that follow: a null for everything measured on the right next token.

The vocabulary is permuted, once for each draw, and every next token is taken for its image. How often tokens
come and which follow which is kept; which logit belongs to which token is not. In a model that has learnt
nothing, and whose unembedding is not its embedding, any such naming is as likely as the true one: ranks among
them are exact p-values.
"""

import numpy as np
from jaxtyping import Int


def relabelled(
    targets: Int[np.ndarray, " pos"], d_out: int, *, n_draws: int, seed: int
) -> Int[np.ndarray, "draw pos"]:
    """The targets under each of `n_draws` permutations of the vocabulary, equal for equal seeds."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(d_out)[targets] for _ in range(n_draws)]
    return np.array(drawn, dtype=np.int64).reshape(n_draws, len(targets))
