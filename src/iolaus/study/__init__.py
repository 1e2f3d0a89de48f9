"""Studies in their storage, and the life of a trial."""
