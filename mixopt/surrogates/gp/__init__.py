"""Gaussian processes at one fidelity."""
