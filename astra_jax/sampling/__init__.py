"""From a model to texts."""
