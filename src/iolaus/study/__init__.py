"""What stands in the storage, and the life of a trial."""
