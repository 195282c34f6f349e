"""`python -m stoa_stack.gen [--check]`."""

import argparse
import sys

from stoa_stack.gen import run
from stoa_stack.gen.errors import GenerationFailed

parser = argparse.ArgumentParser(description="Regenerate gen/ from the contracts.")
parser.add_argument("--check", action="store_true", help="only say what is stale; exit 1 if anything is")
options = parser.parse_args()
try:
    differences = run(check=options.check)
except GenerationFailed as failure:
    sys.exit(str(failure))
sys.stdout.writelines(f"{difference}\n" for difference in differences)
if options.check and differences:
    sys.exit("gen/ is stale: run `stoa gen` and commit what it writes")
