"""`python -m metadisco` is the command `metadisco`."""

import sys

from metadisco.cli import main

if __name__ == "__main__":
    sys.exit(main())
