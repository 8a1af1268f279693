"""What a user runs: the `mixopt` command line, one file per step, and the views of a study."""
