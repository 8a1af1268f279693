"""What is done with finished runs: fit, predict, propose, replay."""
