"""A page about runs: curves, samples, model, recipe and machine in one HTML file."""
