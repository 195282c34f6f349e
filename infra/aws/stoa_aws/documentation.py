"""The tables of docs/aws.md: what each size has, carries and costs; written by `stoa infra --estimate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from stoa_aws import capacity, estimate, prices
from stoa_aws.shop import build
from stoa_aws.sizes import SIZES, Size

BEGIN, END = "<!-- by stoa_aws.documentation: begin -->", "<!-- end -->"


def tables(templates: Mapping[str, Iterable[estimate.Template]]) -> str:
    """All tables, given the templates of each size."""
    return "\n\n".join([BEGIN, _parts(), _carried(), _costs(templates), _usage(), END])


def _parts() -> str:
    rows: Mapping[str, Callable[[Size], str]] = {
        "nodes that are always there": lambda size: f"{size.nodes.always} × {size.nodes.type}",
        "nodes that Karpenter adds on an average day": lambda size: (
            f"{size.nodes.usual} × {size.nodes.usual_type}"
        ),
        "PostgreSQL, with a standby": lambda size: (
            f"{size.postgres.type}, {size.postgres.storage_gb} GB, "
            + ("one for each service" if size.postgres.per_service else "one for all services")
        ),
        "replicas of each": lambda size: str(size.postgres.replicas),
        "Kafka": lambda size: f"{size.kafka.brokers} × {size.kafka.type}, {size.kafka.storage_gb} GB each",
        "documents": lambda size: f"{size.documents.instances} × {size.documents.type}",
        "carts": lambda size: f"{1 + size.cache.replicas} × {size.cache.type}",
        "search": lambda size: (
            f"{size.search.nodes} × {size.search.type}, {size.search.storage_gb} GB each"
            + (f"; 3 × {size.search.master_type} as masters" if size.search.master_type else "")
        ),
        "NAT gateways; zones with endpoints": lambda size: f"{size.nat_gateways}; {size.endpoint_zones}",
    }
    return _table("", SIZES, [(name, [row(size) for size in SIZES.values()]) for name, row in rows.items()])


def _carried() -> str:
    sizes = list(SIZES.values())
    rows = [
        ("processors on an average day", [str(capacity.vcpu(size)) for size in sizes]),
        ("orders/s that they carry", [f"{capacity.orders_per_second(size):.0f}" for size in sizes]),
        ("orders/s with all that Karpenter may add", [
            f"{capacity.orders_per_second(size, capacity.most_vcpu(size)):.0f}" for size in sizes
        ]),
    ]  # fmt: skip
    return _table("", SIZES, rows)


def _costs(templates: Mapping[str, Iterable[estimate.Template]]) -> str:
    sums = [
        estimate.by_group(estimate.bill(templates[name], size, prices.load())) for name, size in SIZES.items()
    ]
    rows = [(group, [estimate.dollars(each[group]) for each in sums]) for group in estimate.GROUPS]
    totals = [sum(each.values(), Decimal()) for each in sums]
    rows.append(("**a month**", [f"**{estimate.dollars(total)}**" for total in totals]))
    rows.append(("an order, in cents", [
        f"{100 * total / size.usage.orders:.1f}" for total, size in zip(totals, SIZES.values(), strict=True)
    ]))  # fmt: skip
    return _table("USD", SIZES, rows)


def _usage() -> str:
    rows: Mapping[str, Callable[[Size], int]] = {
        "orders": lambda size: size.usage.orders,
        "million requests": lambda size: size.usage.requests_millions,
        "GB out": lambda size: size.usage.out_gb,
        "GB between zones": lambda size: size.usage.between_zones_gb,
        "GB through NAT": lambda size: size.usage.through_nat_gb,
        "GB of logs": lambda size: size.usage.logs_gb,
        "GB of backups": lambda size: size.usage.backups_gb,
        "million reads and writes of documents": lambda size: size.usage.document_io_millions,
    }
    return _table(
        "a month",
        SIZES,
        [(name, [f"{row(size):,}" for size in SIZES.values()]) for name, row in rows.items()],
    )


def _table(corner: str, columns: Iterable[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    lines = [f"| {corner} | {' | '.join(columns)} |".replace("|  |", "| |"), "|---|" + "---:|" * len(SIZES)]
    lines.extend(f"| {name} | {' | '.join(values)} |" for name, values in rows)
    return "\n".join(lines)


def _synthesised(size: Size) -> list[estimate.Template]:
    with TemporaryDirectory() as folder:
        build({"size": size.name}, folder).synth()
        return [json.loads(path.read_text()) for path in Path(folder).glob("*.template.json")]


def main(document: Path) -> None:
    """Write the tables into the document, in place of those that are there."""
    text = document.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(before + tables({name: _synthesised(size) for name, size in SIZES.items()}) + after)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
