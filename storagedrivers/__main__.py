"""``python -m storagedrivers``."""

import sys

from storagedrivers.cli.main import main

sys.exit(main())
