#!/usr/bin/env python3
"""What kelpd promises to those who run it, each on a fresh kelpd. Prints a line per promise.

Every file beside this one holds the promises of one kind. A promise is a function, and its name a sentence.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bad_input"))
import gateway  # noqa: E402, F401
import manuals  # noqa: E402, F401
import needles  # noqa: E402, F401
import privileges  # noqa: E402, F401
import reload  # noqa: E402, F401
import service  # noqa: E402, F401
import switches  # noqa: E402, F401
import tool  # noqa: E402, F401
from judge import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(__doc__))
