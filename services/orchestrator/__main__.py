"""`python -m services.orchestrator`."""

import sys

from services.orchestrator.app import run

if __name__ == "__main__":
    sys.exit(run())
