"""Builds images: a Dockerfile, a context, a layer for each step that changes files."""
