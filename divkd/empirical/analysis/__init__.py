"""What the papers ask of a finished training run."""
