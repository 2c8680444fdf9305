"""`python -m services.worker`."""

import sys

from services.worker.app import run

if __name__ == "__main__":
    sys.exit(run())
