"""Measures of tasks, from predictions and labels to results by name."""
