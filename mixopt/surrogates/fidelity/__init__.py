"""Surrogates that carry low-fidelity runs over to the target fidelity."""
