"""Teachers and students: losses, perturbations, the loop, presets, one run."""
