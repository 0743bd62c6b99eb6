"""The command ``python -m docs.figures [FOLDER]``, which draws figures of the pages, here by default."""

import sys
from pathlib import Path

from docs.figures import write

write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
