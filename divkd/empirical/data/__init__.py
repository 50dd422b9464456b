"""Published data sets and anyone's own images, cut into splits; and what corrupts them."""
