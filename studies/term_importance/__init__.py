"""How much of a loss is due to terms of each order, as in the paper that asked it first, and beyond?"""
