"""The multi-view world of Allen-Zhu and Li (arXiv 2012.09816): data, two-layer networks, descent, claims."""
