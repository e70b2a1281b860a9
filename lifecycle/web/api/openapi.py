"""The OpenAPI document: FastAPI's, with the models of problems, and how keys and tenants are named."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lifecycle.web.access import BEARER, COOKIE, TENANT_HEADER
from lifecycle.web.problems import Problem

_ABOUT: Final = """\
Sessions of workflow engines and agents. docs/http-api.md has examples with curl and JavaScript.

* A session's `ETag` is its version; `If-Match` refuses a write on top of somebody else's with 412. Where it is not listed
  it is refused with 400, and nothing is done; so are `If-None-Match` and a lease on writes that do not list them.
* `Idempotency-Key` makes every POST safe to send again.
* What is written under a lease carries it as `Lease-Holder` and `Lease-Epoch`.
* Ids in paths are percent-encoded: they may hold any text. A colon of an id is written `%3A` in the path of a POST.
* Whatever is refused is a problem document (RFC 9457) whose `error` is the name of the error.
"""
_TENANT: Final = {
    "name": TENANT_HEADER,
    "in": "header",
    "required": False,
    "description": "Whose sessions, for a caller who may see several tenants'; * for everybody's, in lists.",
    "schema": {"type": "string", "maxLength": 255},
}


def install(app: FastAPI) -> None:
    """Have the application tell its document at `openapi_url`."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=_ABOUT, routes=app.routes,
        separate_input_output_schemas=False,
    )  # fmt: skip
    made["paths"] = {path: item for path, item in made["paths"].items() if path.startswith("/api/")}
    parts = made.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    parts["parameters"] = {"Tenant": _TENANT}
    schemes = {
        scheme.scheme_name: scheme.model.model_dump(mode="json", by_alias=True, exclude_none=True)
        for scheme in (BEARER, COOKIE)
    }
    parts["securitySchemes"] = schemes
    for item in made["paths"].values():
        for operation in item.values():
            operation["security"] = [{name: []} for name in schemes]
            operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/Tenant"})
    return made
