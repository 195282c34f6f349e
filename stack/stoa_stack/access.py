"""`access.json` in the state folder: where the shop is, and accounts to sign in with."""

from __future__ import annotations

import json

from stoa_stack.credentials import Secrets
from stoa_stack.files import write_atomically
from stoa_stack.instance import Instance
from stoa_stack.services import staff_credentials

CUSTOMER_EMAIL = "shopper@stoa.example"


def write(at: Instance) -> None:
    """Write the file."""
    staff_email, staff_password = staff_credentials(at)
    customer_password = Secrets(at.folder("secrets", "stack")).get("demo_customer_password")
    content = {
        "edge_url": at.edge_url,
        "staff": {"email": staff_email, "password": staff_password},
        "demo_customer": {"email": CUSTOMER_EMAIL, "password": customer_password},
    }
    write_atomically(at.state / "access.json", json.dumps(content, indent=2) + "\n")
