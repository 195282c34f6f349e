"""Email addresses: which text is one, and which two are the same.

Apart from `validation`, since not every service takes addresses and the rules about them are a library.
"""

import unicodedata

import email_validator
import idna

from stoa_chassis.errors import InvalidArgument

# Domains that are nobody's on the internet may be somebody's here: a shop of one company, or of a test.
email_validator.SPECIAL_USE_DOMAIN_NAMES = []


def valid_email(text: str) -> str:
    """Return an email address as its owner wrote it, without the blanks around it.

    Raises InvalidArgument if it is none.
    """
    email = unicodedata.normalize("NFC", text.strip())
    try:
        email_validator.validate_email(email, check_deliverability=False)
    except email_validator.EmailNotValidError:
        raise InvalidArgument("email", "must be an email address, like ann@example.com") from None
    return email


def email_key(email: str) -> str:
    """Return the one form of an email address, in which it is compared, unique and looked up.

    However it is capitalised it is the same address, and so it is with its domain in Unicode or in the ASCII
    of IDNA. What is no address at all has a form too, for it is looked up before it is judged.
    """
    email = unicodedata.normalize("NFC", email.strip()).lower()
    local, at, domain = email.rpartition("@")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode()
        except idna.IDNAError:
            return email
    return f"{local}{at}{domain}"
