"""Upcycling: dense models in, one mixture-of-experts model and its receipt out; see `base`."""

from mixopt.models.upcycling.base import Receipt, Upcycler, upcycler_class

__all__ = ["Receipt", "Upcycler", "upcycler_class"]
