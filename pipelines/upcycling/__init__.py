"""`mixopt upcycle`: dense checkpoints in, a mixture of experts out."""
