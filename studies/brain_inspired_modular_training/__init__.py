"""How do two layers of attention make induction heads, when, and what only looks like one?"""
