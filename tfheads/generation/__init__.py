"""Generation: one loop for all families."""
