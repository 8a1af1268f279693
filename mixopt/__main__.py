"""`python -m mixopt`: the command line."""

from mixopt.pipelines.cli import main

if __name__ == "__main__":
    main()
