"""Dockerfiles: what they say, and what that means for an image. Nothing is read or run here."""
