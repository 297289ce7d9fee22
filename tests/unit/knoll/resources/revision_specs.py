"""Specs of Revisions and what is wrong with them, for the tests of their rules."""

from dataclasses import replace

from knoll.config.features import FeaturesConfig
from knoll.config.platform import PlatformConfig
from knoll.resources.admission.parsing import parse
from knoll.resources.admission.pod_defaults import defaulted_spec
from knoll.resources.admission.revision_rules import spec_problems
from knoll.resources.models.meta import ObjectMeta
from knoll.resources.models.revision import RevisionSpec
from knoll.resources.validation.problems import merged
from knoll.values.json import Json

CONFIG = PlatformConfig()
C = "spec.containers[0]"


def problems_of(spec: Json, config: PlatformConfig = CONFIG, *, defaults: bool = True) -> list[str]:
    """What is wrong with a Revision's spec. Args: defaults: put them in first, as admission does."""
    spec_model = parse(RevisionSpec, spec)[0]
    if defaults:
        spec_model = defaulted_spec(spec_model, config, ObjectMeta(name="hello"))
    return [str(problem) for problem in merged(spec_problems(spec_model, config, "spec"))]


def with_features(**features: str) -> PlatformConfig:
    """The platform's configuration with these flags of config-features."""
    return replace(CONFIG, features=replace(FeaturesConfig(), **features))  # type: ignore[arg-type]


def container(**fields: object) -> Json:
    """A spec with one container."""
    return {"containers": [{"image": "a", **fields}]}


RELATIVE = "must be a relative path without '..' and control characters"
OWN_FILE = "must be a relative path without '..' and control characters, and must not start with '..'"
