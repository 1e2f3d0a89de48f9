"""From overrides to a search space, and from its values to a configuration."""
