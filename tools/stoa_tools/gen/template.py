"""The templates of generated Python."""

from pathlib import Path
from typing import Any

import jinja2

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # it writes Python
)


def render(name: str, **values: Any) -> str:
    """Return the source that the template of this name makes of the values."""
    return _templates.get_template(name).render(**values)
