"""MLflow's view of a study, rebuilt from the ledger."""
