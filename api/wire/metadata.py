"""The metadata of objects: identity, names, times and generation, on every write of every kind. Pure.

`resourceVersion` belongs to the store, and the rules of each kind to admission.
"""

import re
from dataclasses import dataclass
from typing import Any

from knoll.values.errors import BadRequestError, FieldError, InvalidResourceError, PreconditionError
from knoll.values.json import Json
from knoll.values.kinds import Kind
from knoll.values.timestamps import timestamp

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_MAX_ANNOTATIONS = 256 * 1024
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Without vowels, so that suffixes do not form words."""
_MAX_PREFIX = 58
SUFFIX_LENGTH = 5


@dataclass(frozen=True, slots=True)
class Place:
    """The kind, namespace and name in a request's path."""

    kind: Kind
    version: str
    """The version in the path; the body must have the same."""
    namespace: str
    """Empty for cluster-scoped kinds and lists of all namespaces."""
    name: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.kind.group}/{self.version}" if self.kind.group else self.version


def check_type(body: Any, place: Place) -> Json:
    """Return the body as an object of the path's kind and version.

    Raises: BadRequestError: it is not an object, or its kind or version differs from the path's.
    """
    if not isinstance(body, dict):
        raise BadRequestError(f"the body must be an object of kind {place.kind.kind}, not {_word(body)}")
    if place.kind.builtin:
        # Typed clients omit apiVersion and kind, which their types imply.
        body = {
            **body,
            "apiVersion": body.get("apiVersion") or place.api_version,
            "kind": body.get("kind") or place.kind.kind,
        }
    api_version, kind = body.get("apiVersion"), body.get("kind")
    if kind is None or api_version is None or kind == "" or api_version == "":
        missing = "kind" if not kind else "apiVersion"
        raise BadRequestError(
            f"Object '{missing}' is missing: the body must have apiVersion: {place.api_version} and kind: "
            f"{place.kind.kind}"
        )
    if kind != place.kind.kind:
        raise BadRequestError(
            f"{kind if isinstance(kind, str) else _word(kind)} in version {str(api_version)[:60]!r} cannot be handled "
            f"as a {place.kind.kind}: this path expects kind {place.kind.kind} of {place.api_version}"
        )
    if api_version != place.api_version:
        raise BadRequestError(
            f"the API version in the data ({str(api_version)[:80]}) does not match the expected API version "
            f"({place.api_version})"
        )
    metadata = body.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise BadRequestError(f"metadata must be an object, not {_word(metadata)}")
    return {**body, "metadata": dict(metadata)}


def _word(value: Any) -> str:
    return {
        list: "a list",
        str: "a string",
        int: "a number",
        float: "a number",
        bool: "true or false",
        dict: "an object",
    }.get(type(value), "nothing")


def for_create(body: Json, place: Place, *, now: float, uid: str, suffix: str) -> Json:
    """Set the metadata of a new object.

    Args:
        body: from `check_type`; mutated.
        now: epoch seconds.
        suffix: random letters for `generateName`.

    Raises:
        BadRequestError: namespace or name differ from the path's, or there is a resourceVersion.
        InvalidResourceError: no name, or invalid names and labels.
    """
    metadata: Json = body["metadata"]
    if metadata.get("resourceVersion"):
        raise BadRequestError("resourceVersion should not be set on objects to be created")
    _place(metadata, place)
    if not metadata.get("name") and isinstance(metadata.get("generateName"), str) and metadata["generateName"]:
        metadata["name"] = metadata["generateName"][:_MAX_PREFIX] + suffix
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"):
        metadata.pop(field, None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = timestamp(now)
    metadata["generation"] = 1
    if "status" in place.kind.subresources:
        body.pop("status", None)
    _check(metadata, place.kind)
    return body


def for_update(body: Json, old: Json, place: Place) -> Json:
    """Set the metadata of a replaced object: fields that clients cannot change keep their values.

    Raises: as `for_create`; PreconditionError: the body belongs to an earlier object of the same name.
    """
    metadata: Json = body["metadata"]
    was: Json = old["metadata"]
    _place(metadata, place)
    if not metadata.get("name"):
        metadata["name"] = was["name"]
    same_object(metadata, was, place)
    metadata.pop("selfLink", None)
    for field in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(field, None)
        if field in was:
            metadata[field] = was[field]
    if "generateName" not in metadata and "generateName" in was:
        metadata["generateName"] = was["generateName"]
    if "status" in place.kind.subresources:
        body.pop("status", None)
        if "status" in old:
            body["status"] = old["status"]
    _check(metadata, place.kind)
    if was.get("deletionTimestamp"):
        added = set(metadata.get("finalizers") or ()) - set(was.get("finalizers") or ())
        if added:
            raise InvalidResourceError(
                [
                    FieldError(
                        "Forbidden: no new finalizers can be added if the object is being deleted",
                        ("metadata.finalizers",),
                    )
                ]
            )
    return body


def same_object(metadata: Json, was: Json, place: Place) -> None:
    """Refuse a body with the uid of another object.

    Args:
        metadata: of the body.
        was: the metadata of the stored object.

    Raises: PreconditionError.
    """
    uid = metadata.get("uid")
    if uid and uid != was.get("uid"):
        raise PreconditionError(
            f'Operation cannot be fulfilled on {place.kind.id} "{was["name"]}": '
            f"Precondition failed: UID in precondition: {str(uid)[:80]}, UID in object meta: {was.get('uid')}"
        )


def _place(metadata: Json, place: Place) -> None:
    if place.kind.namespaced:
        namespace = metadata.get("namespace")
        if namespace and namespace != place.namespace:
            raise BadRequestError(
                f"the namespace of the provided object does not match the namespace sent on the request: "
                f"{str(namespace)[:80]!r} and {place.namespace!r}"
            )
        metadata["namespace"] = place.namespace
    else:
        metadata.pop("namespace", None)
    name = metadata.get("name")
    if place.name and name and name != place.name:
        raise BadRequestError(
            f"the name of the object ({str(name)[:80]}) does not match the name on the URL ({place.name})"
        )


def generation(body: Json, old: Json) -> None:
    """Increment the generation if the spec changed. Args: body: after admission; mutated."""
    was = old["metadata"].get("generation", 1)
    changed = body.get("spec") != old.get("spec")
    body["metadata"]["generation"] = was + 1 if changed else was


def same(left: Json, right: Json) -> bool:
    """Whether two states of an object are equal, apart from resourceVersion and managedFields."""
    return _plain(left) == _plain(right)


def _plain(body: Json) -> Json:
    metadata = {
        key: value for key, value in body["metadata"].items() if key not in ("resourceVersion", "managedFields")
    }
    return {**body, "metadata": metadata}


def suffix_from(number: int) -> str:
    """Return letters for `generateName`, from a random number of at least 32 bits."""
    letters = []
    for _ in range(SUFFIX_LENGTH):
        number, at = divmod(number, len(_SUFFIX_LETTERS))
        letters.append(_SUFFIX_LETTERS[at])
    return "".join(letters)


def _check(metadata: Json, kind: Kind) -> None:
    problems = [*_name_problems(metadata, kind), *_map_problems(metadata), *_list_problems(metadata)]
    if problems:
        raise InvalidResourceError(problems)
    # Go clients send empty containers and nulls.
    for field in ("labels", "annotations", "finalizers", "ownerReferences", "generateName", "creationTimestamp"):
        if field in metadata and not metadata[field]:
            del metadata[field]


def _name_problems(metadata: Json, kind: Kind) -> list[FieldError]:
    name = metadata.get("name")
    if name is None or name == "":
        return [FieldError("Required value: name or generateName is required", ("metadata.name",))]
    if not isinstance(name, str):
        return [FieldError(f"Invalid value: must be a string, not {_word(name)}", ("metadata.name",))]
    limit, rule = (63, _LABEL) if kind.plural == "namespaces" else (253, _SUBDOMAIN)
    if len(name) > limit:
        return [
            FieldError(f'Invalid value: "{name[:60]}…": must be no more than {limit} characters', ("metadata.name",))
        ]
    if not rule.fullmatch(name):
        rule_text = (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
            "end with an alphanumeric character"
            if rule is _LABEL
            else "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
            "must start and end with an alphanumeric character"
        )
        return [FieldError(f'Invalid value: "{name[:253]}": {rule_text}', ("metadata.name",))]
    prefix = metadata.get("generateName")
    if prefix is not None and not isinstance(prefix, str):
        return [FieldError("Invalid value: must be a string", ("metadata.generateName",))]
    return []


def _map_problems(metadata: Json) -> list[FieldError]:
    problems = []
    for field in ("labels", "annotations"):
        entries = metadata.get(field)
        if entries is None:
            continue
        path = f"metadata.{field}"
        if not isinstance(entries, dict):
            problems.append(FieldError(f"Invalid value: must be an object, not {_word(entries)}", (path,)))
            continue
        size = 0
        for key, value in entries.items():
            if not isinstance(value, str):
                problems.append(FieldError(f"Invalid value: must be a string, not {_word(value)}", (f"{path}.{key}",)))
                continue
            size += len(key) + len(value)
            if not qualified(key):
                problems.append(FieldError(f'Invalid value: "{key[:100]}": {_QUALIFIED_WORDS}', (path,)))
            if field == "labels" and (len(value) > 63 or (value and not _QUALIFIED.fullmatch(value))):
                problems.append(FieldError(f'Invalid value: "{value[:100]}": {_VALUE_WORDS}', (path,)))
        if field == "annotations" and size > _MAX_ANNOTATIONS:
            problems.append(FieldError(f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes", (path,)))
    return problems


_QUALIFIED_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc'), with an optional DNS subdomain prefix and '/'"
)
_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character; at most 63 characters"
)


def qualified(key: str) -> bool:
    """Whether the key of a label or annotation is valid. Source: Kubernetes `IsQualifiedName`."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix.lower())):
        return False
    return 0 < len(name) <= 63 and _QUALIFIED.fullmatch(name) is not None


def _list_problems(metadata: Json) -> list[FieldError]:
    problems = []
    finalizers = metadata.get("finalizers")
    if finalizers is not None and (
        not isinstance(finalizers, list) or not all(isinstance(item, str) and qualified(item) for item in finalizers)
    ):
        problems.append(FieldError("Invalid value: must be a list of qualified names", ("metadata.finalizers",)))
    owners = metadata.get("ownerReferences")
    if owners is not None and not isinstance(owners, list):
        return [*problems, FieldError("Invalid value: must be a list", ("metadata.ownerReferences",))]
    for at, owner in enumerate(owners or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not isinstance(owner, dict) or not isinstance(owner.get(field), str) or not owner[field]:
                problems.append(FieldError("Required value", (f"metadata.ownerReferences[{at}].{field}",)))
    return problems
