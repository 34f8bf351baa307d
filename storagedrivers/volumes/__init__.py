"""The volume driver of the package; reached through the entry points ``storagedrivers.volumes``
only.
"""
