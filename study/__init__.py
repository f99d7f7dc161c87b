"""The study: the six models trained again, held against what was published."""
