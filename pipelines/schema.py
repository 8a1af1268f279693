"""`python -m pipelines.schema`, in a checkout: writes the files' JSON schemas and pages."""

from mixopt.pipelines.study import schema as study_schema
from mixopt.pipelines.upcycling import schema as spec_schema

if __name__ == "__main__":
    study_schema.main()
    spec_schema.main()
