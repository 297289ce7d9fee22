"""Content negotiation: the form of the response, from the Accept header. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from knoll.values.errors import KnollError


class NotAcceptableError(KnollError):
    """None of the accepted media types is supported."""

    code, reason = 406, "NotAcceptable"


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a response: `plain` objects, a `table`, or `partial` objects (metadata only)."""

    shape: str = "plain"
    version: str = "v1"
    """Version of `meta.k8s.io`, for tables and partial objects."""
    yaml: bool = False

    @property
    def api_version(self) -> str:
        return f"meta.k8s.io/{self.version}"


PLAIN = Form()


@lru_cache(maxsize=256)
def form(accept: str) -> Form:
    """Return the first supported form in `accept`; plain JSON if the header is empty.

    Raises: NotAcceptableError.
    """
    if not accept:
        return PLAIN
    for media, parameters in ranges(accept):
        if media in ("application/json", "application/*", "*/*"):
            shape = parameters.get("as", "")
            if not shape:
                return PLAIN
            if parameters.get("g") != "meta.k8s.io" or parameters.get("v") not in ("v1", "v1beta1"):
                continue
            if shape == "Table":
                return Form("table", parameters["v"])
            if shape in ("PartialObjectMetadata", "PartialObjectMetadataList"):
                return Form("partial", parameters["v"])
        elif media in ("application/yaml", "text/yaml") and not parameters.get("as"):
            return Form(yaml=True)
    raise NotAcceptableError(
        "only the following media types are accepted: application/json, application/yaml, "
        "application/json;as=Table;v=v1;g=meta.k8s.io, application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    )


@lru_cache(maxsize=256)
def ranges(accept: str) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """Return (media type, parameters) pairs of an Accept header, best quality first, else in its order."""
    candidates: list[tuple[float, str, Mapping[str, str]]] = []
    for part in accept.split(",")[:64]:
        media, *rest = [piece.strip() for piece in part.split(";")]
        parameters = {
            key.strip(): value.strip().strip('"') for key, _, value in (piece.partition("=") for piece in rest)
        }
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 1.0
        if media and quality > 0:
            candidates.append((quality, media.lower(), parameters))
    candidates.sort(key=lambda entry: -entry[0])
    return tuple((media, parameters) for _, media, parameters in candidates)
