"""Which form of an answer a client asked for in its Accept header. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from knoll.values.errors import KnollError


class NotAcceptableError(KnollError):
    """None of the wanted media types can be answered."""

    code, reason = 406, "NotAcceptable"


@dataclass(frozen=True, slots=True)
class Form:
    """How to answer: `plain` objects, a `table`, or `partial` objects (metadata only)."""

    shape: str = "plain"
    version: str = "v1"
    """Of `meta.k8s.io`, for tables and partial objects."""
    yaml: bool = False

    @property
    def api_version(self) -> str:
        return f"meta.k8s.io/{self.version}"


PLAIN = Form()


@lru_cache(maxsize=256)
def form(accept: str) -> Form:
    """The first form in `accept` that is served here; plain JSON when the header is empty.

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
    """(media type, parameters) of an Accept header in its order, best quality first."""
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
