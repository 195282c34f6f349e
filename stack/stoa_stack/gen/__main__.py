"""`python -m stoa_stack.gen`: what `stoa gen` does, without loading the rest of `stoa`."""

import typer

from stoa_stack.gen.command import gen

if __name__ == "__main__":
    typer.run(gen)
