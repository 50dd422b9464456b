"""divkd: why ensembles of neural networks work, and how to keep what they know in one cheap network."""

__version__ = "0.1.0"
