"""A study as a page, as pictures, as text and as plain values."""
