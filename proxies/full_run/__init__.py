"""The full run: one model, on as many devices as there are; torch and numpy alone."""
