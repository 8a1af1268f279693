"""The `mixopt` command line: a file for each group of commands, together in `app`."""

from mixopt.pipelines.cli.app import app, main

__all__ = ["app", "main"]
