"""Settings compared over several seeds."""
