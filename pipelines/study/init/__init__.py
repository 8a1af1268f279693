"""`mixopt init`: a commented study file, from answers on the command line or in an interview."""
