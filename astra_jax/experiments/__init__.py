"""Whole runs: how they begin, go on, and what several come to."""
