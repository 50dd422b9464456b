"""Plain networks for small images, ensembles of them, and their BatchEnsemble form."""
