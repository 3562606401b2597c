"""One pass made affine, and everything that is exact about it: orders, totals, paths, scores."""
