"""Regressions without a Gaussian process."""
