"""``python -m storagedrivers``."""

from storagedrivers.cli.main import program

program()
