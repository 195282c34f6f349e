"""`access.json` in the state folder: where the shop is, and accounts to sign in with."""

from __future__ import annotations

import json

from stoa_stack.credentials import Secrets
from stoa_stack.files import write_atomically
from stoa_stack.instance import Instance
from stoa_stack.services import staff_credentials

CUSTOMER_EMAIL = "shopper@stoa.example"
CUSTOMER_SECRET = "demo_customer_password"


def write(at: Instance) -> None:
    """Write the file."""
    write_atomically(at.state / "access.json", content(at))


def content(at: Instance) -> str:
    """What is in the file."""
    staff_email, staff_password = staff_credentials(at)
    customer_password = Secrets(at.folder("secrets", "stack")).get(CUSTOMER_SECRET)
    known = {
        "edge_url": at.edge_url,
        "staff": {"email": staff_email, "password": staff_password},
        "demo_customer": {"email": CUSTOMER_EMAIL, "password": customer_password},
    }
    return json.dumps(known, indent=2) + "\n"
