"""Figures made from results.json files alone, of either world or of both."""
