"""``python -m storagedrivers``."""

from storagedrivers.cli.main import program

if __name__ == "__main__":
    program()
