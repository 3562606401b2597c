"""The residual stream as a sum of parts, and what is read off it."""
