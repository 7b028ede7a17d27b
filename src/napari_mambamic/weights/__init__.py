"""Weights: what they expect and mean, where they are, and how they are read safely."""
