"""The installation's certificates, to read: /api/v1/trust-management/certificates and /infra/certificates."""

from datetime import datetime
from pathlib import Path

from cryptography import x509
from fastapi import APIRouter

from manager_stub.api.errors import Problem
from manager_stub.api.objects import Json, Page, listed
from manager_stub.expiries import INSTALLATION
from manager_stub.model import Id


def router(directory: Path) -> APIRouter:
    routes = APIRouter(tags=["Certificate"])
    for home in ("/api/v1/trust-management/certificates", "/policy/api/v1/infra/certificates"):
        _add(routes, directory, home)
    return routes


def _add(routes: APIRouter, directory: Path, home: str) -> None:
    @routes.get(home)
    async def list_certificates(page: Page) -> Json:
        return listed(INSTALLATION, page, lambda name: _shown(directory, name))

    @routes.get(f"{home}/{{id}}")
    async def read(id: Id) -> Json:
        if id not in INSTALLATION:
            raise Problem(404, f"there is no certificate {id}")
        return _shown(directory, id)


def _shown(directory: Path, name: str) -> Json:
    pem = (directory / f"{name}.crt").read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    return {
        "resource_type": "certificate_ca" if name == "ca" else "certificate_signed",
        "id": name,
        "display_name": name,
        "pem_encoded": pem.decode(),
        "details": [
            {
                "subject": certificate.subject.rfc4514_string(),
                "issuer": certificate.issuer.rfc4514_string(),
                "not_before": _ms(certificate.not_valid_before_utc),
                "not_after": _ms(certificate.not_valid_after_utc),
            }
        ],
    }


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
