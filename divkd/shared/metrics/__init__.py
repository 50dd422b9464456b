"""Quality, calibration, diversity: one definition each, for member log-probabilities (M, N, K)."""
