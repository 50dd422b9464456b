"""The premise of Nam et al. 2021 in two dimensions."""
