#!/usr/bin/env python3
"""What kelpd and kelpctl promise about bad input, each against a fresh kelpd. Prints a line per promise.

Every file beside this one holds the promises of one kind. A promise is a function, and its name a sentence.
"""

from __future__ import annotations

import sys

import damage  # noqa: F401
import deaths  # noqa: F401
import file_ids  # noqa: F401
import files  # noqa: F401
import limits  # noqa: F401
import peer_requests  # noqa: F401
import peers  # noqa: F401
import run_dirs  # noqa: F401
import sidecar  # noqa: F401
import signals  # noqa: F401
from judge import main

if __name__ == "__main__":
    sys.exit(main(__doc__))
