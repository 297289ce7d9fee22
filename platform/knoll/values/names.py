"""Names: validation, names of child objects, and the hosts and URLs of objects. Pure."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

QUEUE_PROXY = "queue-proxy"
"""Knative's sidecar container. Pods of this platform list one, whose log is the request log."""
MAX_LABEL = 63
MAX_SUBDOMAIN = 253
CLUSTER_DOMAIN = "svc.cluster.local"

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_DNS_1123.pattern}(\.{_DNS_1123.pattern})*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
VARIABLE = re.compile(r"[ -<>-~]+")
"""Name of an environment variable. Source: Kubernetes, apimachinery validation, `IsRelaxedEnvVarName`."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Control characters (C0, DEL and C1)."""
_HEAD = MAX_LABEL - 32
"""Length of a name that is left beside a hexadecimal MD5."""

# Messages of Kubernetes, letter for letter: clients and their tests look for them.
_DNS_1035_WORDS = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_DNS_1123_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_QUALIFIED_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def dns_1035_problems(name: str, *, prefix: bool = False) -> list[str]:
    """Why `name` is not a DNS-1035 label; a `prefix` may end in `-`."""
    return _problems(name, _DNS_1035, _DNS_1035_WORDS, MAX_LABEL, prefix)


def dns_1123_problems(name: str) -> list[str]:
    """Why `name` is not a DNS-1123 label."""
    return _problems(name, _DNS_1123, _DNS_1123_WORDS, MAX_LABEL)


def subdomain_problems(name: str) -> list[str]:
    """Why `name` is not a DNS-1123 subdomain, such as a host name."""
    return _problems(name, _SUBDOMAIN, _SUBDOMAIN_WORDS, MAX_SUBDOMAIN)


def qualified_problems(name: str) -> list[str]:
    """Why `name` is not a qualified name: letters, digits, `-_.`, with an optional `prefix.domain/`."""
    prefix, slash, last = name.rpartition("/")
    problems = [f"prefix part {text}" for text in subdomain_problems(prefix)] if slash else []
    return problems + _problems(last, _QUALIFIED, _QUALIFIED_WORDS, MAX_LABEL)


def _problems(name: str, form: re.Pattern[str], rule: str, longest: int, prefix: bool = False) -> list[str]:
    tried = name[:-1] + "a" if prefix and name.endswith("-") else name
    problems = [f"must be no more than {longest} characters"] if len(name) > longest else []
    return problems if form.fullmatch(tried) else [*problems, rule]


def printable(text: str) -> str:
    """Escape control characters, so that a message cannot control a terminal."""
    return CONTROL.sub(lambda character: f"\\x{ord(character[0]):02x}", text)


def child_name(parent: str, suffix: str) -> str:
    """The name of a child object: `parent + suffix`, shortened with a digest if that exceeds 63 characters.

    Source: knative.dev/pkg, kmeta.ChildName; the same input gives the same name there.
    """
    if len(parent) + len(suffix) <= MAX_LABEL:
        return parent + suffix
    if len(suffix) < _HEAD:
        return f"{parent[: _HEAD - len(suffix)]}{_md5(parent)}{suffix}"
    name = f"{parent[:_HEAD]}{_md5(parent + suffix)}"
    return (name + suffix[: MAX_LABEL - len(name)]).rstrip("-_.")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def revision_name(configuration: str, generation: int) -> str:
    """The default name of the Revision of a Configuration's generation."""
    return child_name(configuration, f"-{generation:05d}")


@dataclass(frozen=True, slots=True)
class TemplateValues:
    """Values of the fields that a template can use."""

    name: str
    namespace: str
    domain: str = ""
    tag: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


_ACTION = re.compile(r"{{([^{}]*)}}")
_FIELD = re.compile(r"\.(Name|Namespace|Domain|Tag)")
_INDEX = re.compile(r"""(?:index\s+\.(Annotations|Labels)\s+["`]([^"`]+)["`]|\.(Annotations|Labels)\.(\w+))""")


def render(template: str, named: TemplateValues) -> str:
    """Render a Go template such as `{{.Name}}.{{.Namespace}}.{{.Domain}}`.

    Supported are `.Name`, `.Namespace`, `.Domain`, `.Tag`, `.Labels.key`, `.Annotations.key` and
    `index .Annotations "key"`; a missing key is empty.

    Raises:
        ValueError: the template uses something else, which the message names.
    """

    def value(action: re.Match[str]) -> str:
        expression = action[1].removeprefix("-").removesuffix("-").strip()
        if match := _FIELD.fullmatch(expression):
            return str(getattr(named, match[1].lower()))
        if match := _INDEX.fullmatch(expression):
            keys = named.annotations if "Annotations" in (match[1], match[3]) else named.labels
            return keys.get(match[2] or match[4], "")
        raise ValueError(
            f"{action[0][:100]!r} is not supported; use .Name, .Namespace, .Domain, .Tag, .Labels or .Annotations"
        )

    result = _ACTION.sub(value, template)
    if "{{" in result or "}}" in result:
        raise ValueError(f"the template {template[:100]!r} has unbalanced braces")
    return result


def matching(template: str, domains: Sequence[str]) -> re.Pattern[str]:
    """A regular expression that matches all hosts, in lower case, that a template can render to.

    Names, namespaces and tags are any labels; labels and annotations of objects are any text.

    Args:
        template: one that `render` accepts.
        domains: possible values of `.Domain`.
    """
    label = rf"(?:{_DNS_1123.pattern})"
    parts = {
        "Name": label,
        "Namespace": label,
        "Domain": f"(?:{'|'.join(map(re.escape, domains)) or '(?!)'})",
        "Tag": f"{label}?",
    }
    pattern, end = "", 0
    for action in _ACTION.finditer(template):
        field_name = _FIELD.fullmatch(action[1].removeprefix("-").removesuffix("-").strip())
        pattern += re.escape(template[end : action.start()].lower())
        pattern += parts[field_name[1]] if field_name else "[^/]*"
        end = action.end()
    return re.compile(pattern + re.escape(template[end:].lower()))


def local_host(name: str, namespace: str) -> str:
    """The cluster-local host of a Route: `name.namespace.svc.cluster.local`."""
    return f"{name}.{namespace}.{CLUSTER_DOMAIN}"


def local_hosts(name: str, namespace: str) -> tuple[str, str, str]:
    """All three forms of the cluster-local host, the longest first."""
    return local_host(name, namespace), f"{name}.{namespace}.svc", f"{name}.{namespace}"


def is_local_domain(domain: str) -> bool:
    """Whether hosts under `domain` are cluster-local."""
    return domain == CLUSTER_DOMAIN


def url(host: str, scheme: str = "http", port: int = 0) -> str:
    """A URL; the port is omitted if it is 0 or the scheme's default."""
    usual = {"http": 80, "https": 443}.get(scheme)
    return f"{scheme}://{host}" if port in (0, usual) else f"{scheme}://{host}:{port}"


def joined(problems: Sequence[str]) -> str:
    """Problems as Go formats a list of strings."""
    return f"[{' '.join(problems)}]"
