"""A run of the classifier from its configuration to its results."""
