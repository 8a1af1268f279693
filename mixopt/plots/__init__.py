"""Figures, from the library's own types. Pure: every function returns a plotly figure."""
