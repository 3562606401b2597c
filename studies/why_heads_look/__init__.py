"""Why does a head look here rather than elsewhere? Its score, as an exact sum over pairs of parts."""
