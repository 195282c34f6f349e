"""`python -m tests.upgrade.renamed_column VERSION FOLDER`: write what is other in a version."""

import sys
from pathlib import Path

from tests.upgrade.renamed_column import write

if __name__ == "__main__":
    write(int(sys.argv[1]), Path(sys.argv[2]))
