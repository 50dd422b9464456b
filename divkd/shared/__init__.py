"""What both worlds share: metrics, seeds, run directories, progress, errors, and pages made from results."""
