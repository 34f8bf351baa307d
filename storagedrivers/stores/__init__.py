"""What a store keeps: the database, layers, mounts, images and containers; and
what looks after them as a whole.
"""
