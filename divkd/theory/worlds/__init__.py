"""The worlds that the theory sets against its own: Gaussian inputs, and networks in the tangent-kernel regime."""
