"""Labels as PDF: one page of 4 by 6 inches, written by hand, with a bar code in Code 39."""

from collections.abc import Sequence

_WIDTH, _HEIGHT = 288, 432  # points
_SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ*"
# Nine bars and gaps of each, narrow or wide.
_PATTERNS = """
nnnwwnwnn wnnwnnnnw nnwwnnnnw wnwwnnnnn nnnwwnnnw wnnwwnnnn nnwwwnnnn nnnwnnwnw
wnnwnnwnn nnwwnnwnn wnnnnwnnw nnwnnwnnw wnwnnwnnn nnnnwwnnw wnnnwwnnn nnwnwwnnn
nnnnnwwnw wnnnnwwnn nnwnnwwnn nnnnwwwnn wnnnnnnww nnwnnnnww wnwnnnnwn nnnnwnnww
wnnnwnnwn nnwnwnnwn nnnnnnwww wnnnnnwwn nnwnnnwwn nnnnwnwwn wwnnnnnnw nwwnnnnnw
wwwnnnnnn nwnnwnnnw wwnnwnnnn nwwnwnnnn nwnnwnwnn
"""
_CODE_39 = dict(zip(_SIGNS, _PATTERNS.split(), strict=True))
_BAR_WIDTHS = {"n": 0.8, "w": 2.0}
_GAP = 0.8


def pdf(carrier: str, tracking_id: str, lines: Sequence[str]) -> bytes:
    """Return a label with the carrier's name, lines of text and the number as a bar code."""
    page = [
        f"BT /F1 28 Tf 18 {_HEIGHT - 46} Td ({_text(carrier.upper())}) Tj ET",
        f"18 {_HEIGHT - 58} {_WIDTH - 36} 2 re f",
        *(
            f"BT /F1 12 Tf 18 {_HEIGHT - 84 - 16 * at} Td ({_text(line)}) Tj ET"
            for at, line in enumerate(lines)
        ),
        *_bars(tracking_id, bottom=60, height=70),
        f"BT /F1 12 Tf 18 40 Td ({_text(tracking_id)}) Tj ET",
    ]
    return _document("\n".join(page).encode("cp1252"))


def _bars(number: str, *, bottom: float, height: float) -> list[str]:
    bars, left = [], 18.0
    for sign in f"*{number}*":
        for at, kind in enumerate(_CODE_39[sign]):
            if at % 2 == 0:
                bars.append(f"{left:.1f} {bottom} {_BAR_WIDTHS[kind]} {height} re f")
            left += _BAR_WIDTHS[kind]
        left += _GAP
    return bars


def _text(text: str) -> str:
    """A string of PDF in the alphabet of its built-in fonts; what that has not prints as a question mark."""
    known = text.encode("cp1252", "replace").decode("cp1252")
    return known.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def _document(content: bytes) -> bytes:
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
    page = (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>" % (_WIDTH, _HEIGHT)
    )
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        page,
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content),
        font,
    )
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(offsets) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(offsets) + 1) + table + trailer
