"""Skip-trigrams: what a head makes likelier by itself, and whether text bears it out."""
