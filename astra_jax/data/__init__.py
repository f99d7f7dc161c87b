"""From a text to batches of ids."""
