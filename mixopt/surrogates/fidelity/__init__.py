"""Surrogates that carry what cheap trainings show to dearer ones."""
