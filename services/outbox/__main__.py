"""`python -m services.outbox`."""

import sys

from services.outbox.app import run

if __name__ == "__main__":
    sys.exit(run())
