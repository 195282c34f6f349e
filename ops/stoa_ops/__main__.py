"""`python -m stoa_ops audit` and so on: the commands, where the local stack with its `stoa` is not there."""

import typer

from stoa_ops.commands import add_to

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
add_to(app)

if __name__ == "__main__":
    app(prog_name="stoa")
