"""`python -m stoa_tools.gen` is `stoa gen`, for when the console script is not installed yet."""

import sys

from stoa_stack.cli import app

if __name__ == "__main__":
    app(["gen", *sys.argv[1:]])
