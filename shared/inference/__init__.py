"""Methods that spend tokens for accuracy: votes, scorers, refinement. Taught in ch04 and ch05."""
