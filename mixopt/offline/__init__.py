"""Finished runs from elsewhere: CSV files read, settings in words, searches replayed on them."""
