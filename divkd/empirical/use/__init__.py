"""Networks put to use: distill one's own, predict, restore, export."""
