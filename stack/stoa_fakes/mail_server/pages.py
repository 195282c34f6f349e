"""What is shown: pages for people, JSON for programs."""

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from stoa_fakes.mail_server.mailbox import Mail, Mailbox, Summary
from stoa_fakes.mail_server.smtp import Faults, Inbound

_LARGEST_PAGE = 1000
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; form-action 'self'"
# A mail may do nothing but look as it wants, and be left by its links.
_MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src https: data:"
)


class Pages:
    """The endpoints."""

    def __init__(self, mailbox: Mailbox, inbound: Inbound) -> None:
        self._mailbox = mailbox
        self._inbound = inbound
        self._templates = Environment(
            loader=PackageLoader("stoa_fakes.mail_server"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["moment"] = _moment

    async def show_list(self, request: Request) -> Response:
        """Show the newest mails."""
        to, subject = request.query_params.get("to", ""), request.query_params.get("subject", "")
        mails = self._mailbox.list(to=to, subject=subject, limit=200)
        return self._page("list.html", mails=mails, to=to, subject=subject)

    async def show_mail(self, request: Request) -> Response:
        """Show a mail."""
        return self._page("mail.html", mail=self._found(request))

    async def show_html(self, request: Request) -> Response:
        """Show the HTML part of a mail as a mail program does, for the frame on its page."""
        html = f'<base target="_blank">{self._found(request).html}'
        return HTMLResponse(html, headers={"content-security-policy": _MAIL_POLICY})

    async def list_mails(self, request: Request) -> Response:
        """List mails, the newest first or, with order=asc, the oldest."""
        query = request.query_params
        try:
            after, limit = int(query.get("after", 0)), min(int(query.get("limit", 50)), _LARGEST_PAGE)
        except ValueError:
            raise HTTPException(400, "after and limit are numbers") from None
        mails = self._mailbox.list(
            to=query.get("to", ""),
            subject=query.get("subject", ""),
            after=after,
            newest=query.get("order", "desc") != "asc",
            limit=limit + 1,
        )
        return JSONResponse(
            {"mails": [_resource(mail) for mail in mails[:limit]], "has_more": len(mails) > limit}
        )

    async def get_mail(self, request: Request) -> Response:
        """Return a mail with what it says."""
        mail = self._found(request)
        said = {"headers": [list(header) for header in mail.headers], "text": mail.text, "html": mail.html}
        return JSONResponse(_resource(mail.summary) | said)

    async def set_faults(self, request: Request) -> Response:
        """Misbehave from now on, or no more."""
        try:
            self._inbound.faults = Faults.model_validate_json(await request.body() or b"{}")
        except ValidationError as error:
            raise HTTPException(400, str(error)) from None
        return JSONResponse(self._inbound.faults.model_dump())

    async def healthz(self, request: Request) -> Response:
        """Say that it is there."""
        return JSONResponse({"status": "ok"})

    def _page(self, template: str, **values: Any) -> Response:
        page = self._templates.get_template(template).render(values)
        return HTMLResponse(page, headers={"content-security-policy": _PAGE_POLICY})

    def _found(self, request: Request) -> Mail:
        mail = self._mailbox.get(request.path_params["mail_id"])
        if mail is None:
            raise HTTPException(404, "there is no such mail")
        return mail


def create_app(mailbox: Mailbox, inbound: Inbound) -> Starlette:
    """Return the application."""
    pages = Pages(mailbox, inbound)
    return Starlette(
        routes=[
            Route("/", pages.show_list),
            Route("/mails/{mail_id:int}", pages.show_mail),
            Route("/mails/{mail_id:int}/html", pages.show_html),
            Route("/api/mails", pages.list_mails),
            Route("/api/mails/{mail_id:int}", pages.get_mail),
            Route("/admin/faults", pages.set_faults, methods=["POST"]),
            Route("/healthz", pages.healthz),
        ]
    )


def _resource(mail: Summary) -> dict[str, Any]:
    return mail._asdict() | {"received": datetime.fromtimestamp(mail.received, UTC).isoformat()}


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%d %b %H:%M:%S}"
