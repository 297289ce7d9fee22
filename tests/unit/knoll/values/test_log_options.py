"""What Kubernetes' parameters of a Pod's log mean here."""

import pytest

from knoll.values.errors import BadRequestError
from knoll.values.log_options import LogOptions, parse

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({}, LogOptions()),
        ({"container": "a", "follow": "true", "timestamps": "1"}, LogOptions("a", follow=True, timestamps=True)),
        ({"follow": "false", "previous": "false"}, LogOptions()),
        ({"tailLines": "0"}, LogOptions(tail=0)),
        ({"sinceSeconds": "10"}, LogOptions(since=NOW - 10)),
        ({"sinceTime": "1970-01-01T00:01:40Z"}, LogOptions(since=100.0)),
        ({"limitBytes": "7"}, LogOptions(limit_bytes=7)),
    ],
    ids=str,
)
def test_parameters_are_read(asked: dict[str, str], options: LogOptions) -> None:
    assert parse(asked, NOW) == options


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"tailLines": "-1"}, "tailLines: '-1' is not a whole number of at least 0"),
        ({"sinceSeconds": "0"}, "sinceSeconds: '0' is not a whole number of at least 1"),
        ({"limitBytes": "many"}, "limitBytes: 'many' is not a whole number of at least 1"),
        ({"follow": "perhaps"}, "follow: 'perhaps' is neither true nor false"),
        ({"sinceTime": "noon"}, "sinceTime: 'noon' is not an RFC 3339 time"),
        ({"sinceTime": "1970-01-01T00:01:40Z", "sinceSeconds": "1"}, "at most one of"),
        ({"previous": "true"}, "is not kept"),
    ],
    ids=str,
)
def test_ambiguous_options_are_refused(asked: dict[str, str], problem: str) -> None:
    with pytest.raises(BadRequestError, match=problem):
        parse(asked, NOW)
