"""Figures of the commands and of the manual: each function takes the numbers and returns a figure."""
