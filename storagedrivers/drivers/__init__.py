"""The four drivers of the package; reached through the entry points ``storagedrivers.drivers``
only.
"""
