"""Settings compared over seeds."""
