"""`python -m pipelines.run STUDY`, in a checkout: the same as `python -m mixopt run STUDY`."""

import sys

from mixopt.pipelines.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
