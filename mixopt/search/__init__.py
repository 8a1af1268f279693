"""Which mixtures to try next: designs, pruning, the surrogate's optimum, proposers."""
