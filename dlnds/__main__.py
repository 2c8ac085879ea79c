"""``python -m dlnds`` is the command ``dlnds``."""

import sys

from dlnds.cli import main

sys.exit(main())
