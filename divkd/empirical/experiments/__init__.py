"""The papers' experiments with trained networks, one module each: which networks there are, and what is asked of them."""
