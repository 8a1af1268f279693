"""Whether a candidate beats the baseline: fresh seeds, looks, the gate."""
