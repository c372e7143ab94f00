"""Generating text and its log-probabilities. Taught in ch02, ch04 and ch06."""
