"""How does a batch of probes grow, and what would a thousand models on a hundred machines take?"""
