"""Conformance suites: subclass one to hold your own implementation to its contract."""
