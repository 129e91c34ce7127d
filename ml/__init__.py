"""Models of customer behavior: frames, training, scoring."""
