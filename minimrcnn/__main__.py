"""``python -m minimrcnn`` is the command ``minimrcnn``."""

import sys

from minimrcnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
