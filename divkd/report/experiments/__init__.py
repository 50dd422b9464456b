"""What is said and shown of `divkd experiment`: one module an experiment, or several of one form."""
