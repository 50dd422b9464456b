"""Deep ensembles and their distillation into one network on real images (Nam et al., arXiv 2110.14149)."""
