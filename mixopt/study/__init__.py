"""A study: its file, its folder, its ledger."""
