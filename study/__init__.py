"""The study: the six models over several seeds, held against what was published."""
