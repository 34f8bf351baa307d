"""What a store keeps: the database, layers, mounts, and what looks after them as a whole."""
