"""mixopt: find the data mixture on which a mixture-of-experts language model should be trained.

This package holds the science and no Ray and no MLflow; see `CONTRIBUTING.md` for the code tour.
"""

__version__ = "0.1.0"
