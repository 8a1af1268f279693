"""Training of proxies: the step loop, evaluation, checkpoints. Needs torch and numpy alone."""
