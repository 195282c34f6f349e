"""A made-up change of a schema, walked as expand and contract: a column of the orders gets another name.

`orders.shipping_method` is to be called `delivery_method`. To rename it would stop the version that runs; so:

1. What is shipped: its code writes and reads the old name.
2. Expand: 9001 adds the new column, and a trigger that keeps both equal; 9002 fills in what was there. The
   code writes and reads the new name.
3. Contract: 9003 drops the trigger and the old column, unused since 9002. The code is that of 2.

Versions 1 and 2 run side by side, and so do 2 and 3. Version 1 does not start any more once 9003 was applied.

`python -m tests.upgrade.renamed_column VERSION FOLDER` writes what a version has other than the shipped one,
as it lies in an image; `order.Containerfile` lays it over the image of the order service:

    python -m tests.upgrade.renamed_column 2 build/order-2
    podman build -f tests/upgrade/renamed_column/order.Containerfile -t localhost/stoa/order:2 build/order-2
"""

from __future__ import annotations

import shutil
from pathlib import Path

import stoa_order

_MIGRATIONS = Path(__file__).parent / "migrations"
_NEWEST = {2: "9002", 3: "9003"}
_RENAMED = (
    ("    shipping_method=(", "    delivery_method=("),
    ('row["shipping_method"]', 'row["delivery_method"]'),
)


def write(version: int, folder: Path) -> None:
    """Write the files of a version that are others than those of the shipped one, or new, to a folder."""
    package = folder / stoa_order.__name__
    migrations = package / "migrations"
    migrations.mkdir(parents=True, exist_ok=True)
    for path in sorted(_MIGRATIONS.glob("*.sql")):
        if path.name[:4] <= _NEWEST[version]:
            shutil.copy(path, migrations)
    source = Path(stoa_order.__file__).with_name("repository.py").read_text()
    for old, new in _RENAMED:
        if source.count(old) != 1:
            raise ValueError(f"the repository of orders has {old!r} no more, or more than once")
        source = source.replace(old, new)
    (package / "repository.py").write_text(source)
