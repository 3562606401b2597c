"""Full QK and OV circuits over the vocabulary, as factors, and what is read off them."""
