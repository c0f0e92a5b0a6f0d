"""A pool on virtual time: days of it in seconds, the same from the same seed."""
