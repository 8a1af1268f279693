"""Whether this machine, and a study on it, can work: `mixopt doctor`."""
