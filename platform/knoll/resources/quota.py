"""ResourceQuotas: what a namespace may use in total, and the messages if it is exceeded. Pure.

Source: Kubernetes, "Resource Quotas", and the messages of its quota admission.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction

from knoll.values.json import Json
from knoll.values.quantity import canonical, parse_quantity

Amounts = Mapping[str, Fraction]
"""Amount of each resource by its name in a quota, such as `pods` or `requests.cpu`; cores and bytes."""

COMPUTE = ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_SHORT = {
    "cpu": "requests.cpu",
    "memory": "requests.memory",
    "count/pods": "pods",
    **{
        name: f"count/{name}"
        for name in ("configmaps", "persistentvolumeclaims", "resourcequotas", "secrets", "services")
    },
}
"""Aliases."""


def resource(name: str) -> str:
    """The canonical name of a resource: `cpu` is `requests.cpu`."""
    return _SHORT.get(name, name)


def hard(quota: Json) -> dict[str, str]:
    """The limits of a ResourceQuota, as written there.

    A quota with scopes limits nothing, because Pods by priority or deadline do not exist here.
    """
    spec = quota.get("spec", {})
    return {} if spec.get("scopes") else spec.get("hard") or {}


def total(amounts: Iterable[Amounts]) -> dict[str, Fraction]:
    """The sum of several amounts."""
    sums: defaultdict[str, Fraction] = defaultdict(Fraction)
    for summand in amounts:
        for name, amount in summand.items():
            sums[name] += amount
    return dict(sums)


def format_amount(name: str, amount: Fraction) -> str:
    """An amount in Kubernetes' format: bytes with binary suffixes, fractional cores in thousandths."""
    if name.endswith(("memory", "storage")) and amount.denominator == 1:
        for power, suffix in ((4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
            if amount and amount.numerator % 1024**power == 0:
                return f"{amount.numerator // 1024**power}{suffix}"
    if amount.denominator == 1:
        return canonical(str(amount.numerator))
    return f"{-(-amount.numerator * 1000 // amount.denominator)}m"


def used(quota: Json, now: Amounts) -> dict[str, str]:
    """`status.used`: the usage of each resource that the quota limits.

    Args:
        now: usage in its namespace; missing resources count as zero.
    """
    return {name: format_amount(name, now.get(resource(name), Fraction(0))) for name in hard(quota)}


def refusal(quotas: Iterable[Json], now: Amounts, asked: Amounts, unsaid: Mapping[str, tuple[str, ...]]) -> str:
    """Why an object may not be created in a namespace; empty if it may.

    Args:
        quotas: of the namespace.
        now: usage in the namespace.
        asked: what it uses.
        unsaid: names of the containers that ask for none of a compute resource. A quota that bounds the resource
            refuses them: what they use could not be counted.
    """
    for quota in sorted(quotas, key=lambda quota: str(quota["metadata"]["name"])):
        name = quota["metadata"]["name"]
        missing = {bound: unsaid[resource(bound)] for bound in hard(quota) if unsaid.get(resource(bound))}
        if missing:
            unset = "; ".join(f"{bound} for: {','.join(containers)}" for bound, containers in sorted(missing.items()))
            return f"failed quota: {name}: must specify {unset}"
        over = sorted(bound for bound, most in hard(quota).items() if _over(resource(bound), most, now, asked))
        if over:
            none = Fraction(0)
            requested = ",".join(f"{bound}={format_amount(bound, asked[resource(bound)])}" for bound in over)
            before = ",".join(f"{bound}={format_amount(bound, now.get(resource(bound), none))}" for bound in over)
            limits = ",".join(f"{bound}={hard(quota)[bound]}" for bound in over)
            return f"exceeded quota: {name}, requested: {requested}, used: {before}, limited: {limits}"
    return ""


def _over(name: str, most: str, now: Amounts, asked: Amounts) -> bool:
    if not asked.get(name):
        return False
    try:
        bound = parse_quantity(str(most))
    except ValueError:
        return False
    return now.get(name, Fraction(0)) + asked[name] > bound


def bounds(quotas: Iterable[Json], asked: Amounts) -> bool:
    """Whether any quota limits a requested resource."""
    return any(resource(name) in asked for quota in quotas for name in hard(quota))


def of_object(kind: str, body: Json) -> dict[str, Fraction]:
    """The amounts for an object other than a Pod.

    Args:
        kind: resource id, such as `configmaps` or `services.serving.knative.dev`.
    """
    amounts = {f"count/{kind}": Fraction(1)}
    if kind == "persistentvolumeclaims":
        asked = body.get("spec", {}).get("resources", {}).get("requests", {}).get("storage")
        amounts["requests.storage"] = parse_quantity(str(asked)) if asked else Fraction(0)
    return amounts


def of_pod(spec: Json) -> dict[str, Fraction]:
    """The amounts for a Pod: the sum of its containers, or the largest init container if that is more."""
    together = total(_of_container(container) for container in spec.get("containers") or ())
    for container in spec.get("initContainers") or ():
        for name, amount in _of_container(container).items():
            together[name] = max(together.get(name, Fraction(0)), amount)
    return {"pods": Fraction(1), **together}


def _of_container(container: Json) -> dict[str, Fraction]:
    resources = container.get("resources") or {}
    amounts: dict[str, Fraction] = {}
    for kind in ("limits", "requests"):
        for name in ("cpu", "memory"):
            if amount := (resources.get(kind) or {}).get(name):
                amounts[f"{kind}.{name}"] = parse_quantity(str(amount))
    # A limit without a request counts as the request.
    for name in ("cpu", "memory"):
        if f"limits.{name}" in amounts:
            amounts.setdefault(f"requests.{name}", amounts[f"limits.{name}"])
    return amounts
