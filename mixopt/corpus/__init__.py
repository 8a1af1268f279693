"""The corpus: sources → build → shards → batches. `shards` and `batches` need numpy alone."""
