"""What carries out descent: the limit engine with its compiled loops, and the dense one that checks it."""
