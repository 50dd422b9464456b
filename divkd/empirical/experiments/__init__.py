"""The papers' experiments: which networks each trains, and what it asks of them."""
