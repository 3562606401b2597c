"""What do attention-only models of no layer and of one layer hold: bigrams, copying, skip-trigrams?"""
