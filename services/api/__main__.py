"""`python -m services.api [migrate]`."""

import sys

from services.api.app import migrate, run

if __name__ == "__main__":
    sys.exit(migrate() if sys.argv[1:] == ["migrate"] else run())
