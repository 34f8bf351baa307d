"""The command line: one module for each noun, and :mod:`.output`. The only place that prints or
exits.
"""
