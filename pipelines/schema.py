"""`python -m pipelines.schema`, in a checkout: writes the study file's JSON schema and its page."""

from mixopt.pipelines.study.schema import main

if __name__ == "__main__":
    main()
