"""`python -m services.projector`."""

import sys

from services.projector.app import run

if __name__ == "__main__":
    sys.exit(run())
