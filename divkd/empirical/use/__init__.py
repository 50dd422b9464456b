"""Networks put to use: distil one's own, predict, restore, export."""
