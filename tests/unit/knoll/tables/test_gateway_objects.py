"""What the data path gets of objects: no more than it uses, and of Secrets only certificates that are referred to."""

from pathlib import Path
from typing import Any

import pytest

from knoll.redis.encryption import PLAIN, EncryptionKey, Keyring, SealedError, dump
from knoll.tables.gateway_objects import field_of, is_current, pack, parse_field, published_objects, unpack
from knoll.values.kinds import CONFIG_MAP, DOMAIN_MAPPING, SECRET


def body(name: str, namespace: str = "bank", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "uid": name, "labels": {"a": "b"}}, **more}


def mapping(secret: str = "", **status: Any) -> dict[str, Any]:
    tls = {"tls": {"secretName": secret}} if secret else {}
    return body("shop.example.com", spec={"ref": {"name": "shop"}, **tls}, **status)


SECRETS = {
    "bank/cert": body("cert", data={"tls.crt": "YQ==", "tls.key": "Yg==", "password": "Yw=="}),
    "bank/other": body("other", data={"tls.crt": "YQ==", "tls.key": "Yg=="}),
    "thief/cert": body("cert", "thief", data={"tls.crt": "YQ==", "tls.key": "Yg=="}),
}


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    (tmp_path / "keys").write_bytes(dump([EncryptionKey.fresh()]))
    return Keyring(tmp_path / "keys")


def test_only_the_certificate_that_a_mapping_of_the_namespace_names_is_published() -> None:
    chosen = published_objects([], [mapping("cert")], SECRETS)
    assert chosen.keys() == {(DOMAIN_MAPPING.id, "bank/shop.example.com"), (SECRET.id, "bank/cert")}
    assert chosen[SECRET.id, "bank/cert"]["data"] == {"tls.crt": "YQ==", "tls.key": "Yg=="}


def test_a_mapping_without_tls_or_without_its_secret_publishes_none() -> None:
    assert published_objects([], [mapping()], SECRETS) == {}
    assert published_objects([], [mapping("missing")], SECRETS).keys() == {(DOMAIN_MAPPING.id, "bank/shop.example.com")}


def test_of_config_maps_only_the_platforms_own_are_published() -> None:
    maps = [body("config-features", "knative-serving", data={"k": "v"}), body("config-features"),
            body("other", "knative-serving")]  # fmt: skip
    chosen = published_objects(maps, [], {})
    assert [(place, body["data"]) for place, body in chosen.items()] == [
        ((CONFIG_MAP.id, "knative-serving/config-features"), {"k": "v"})
    ]


def test_of_a_mapping_only_what_selects_its_certificate_is_published() -> None:
    conditions = [{"type": "DomainClaimed", "status": "True", "message": "x"}, {"type": "Ready", "status": "False"}]
    (published,) = published_objects([], [mapping("cert", status={"conditions": conditions})], {}).values()
    assert published == {
        "metadata": {"namespace": "bank", "name": "shop.example.com", "uid": "shop.example.com"},
        "spec": {"tls": {"secretName": "cert"}},
        "status": {"conditions": [{"type": "DomainClaimed", "status": "True"}]},
    }


def test_a_sealed_secret_opens_only_in_its_place(keyring: Keyring) -> None:
    entry = pack(SECRET.id, "bank/cert", SECRETS["bank/cert"], keyring)
    assert "Yg==" not in entry.body
    assert b'"tls.key":"Yg=="' in unpack(SECRET.id, "bank/cert", entry, keyring)
    with pytest.raises(SealedError):
        unpack(SECRET.id, "thief/cert", entry, keyring)
    with pytest.raises(SealedError):
        unpack(SECRET.id, "bank/cert", entry, PLAIN)


def test_an_entry_is_written_again_when_its_content_or_its_key_is_another(keyring: Keyring, tmp_path: Path) -> None:
    secret = SECRETS["bank/cert"]
    plain, sealed = (pack(SECRET.id, "bank/cert", secret, each) for each in (PLAIN, keyring))
    assert is_current(SECRET.id, "bank/cert", sealed, secret, keyring)
    assert not is_current(SECRET.id, "bank/cert", plain, secret, keyring), "it lay there plain"
    assert not is_current(SECRET.id, "bank/cert", sealed, {**secret, "data": {}}, keyring)
    assert not is_current(SECRET.id, "bank/cert", sealed, secret, PLAIN)
    (tmp_path / "keys").write_bytes(dump([EncryptionKey.fresh(), *keyring_keys(keyring)]))
    assert not is_current(SECRET.id, "bank/cert", sealed, secret, keyring), "the key was rotated"


def keyring_keys(keyring: Keyring) -> tuple[EncryptionKey, ...]:
    return keyring._read()


def test_fields_name_kind_and_object() -> None:
    assert parse_field(field_of(SECRET.id, "bank/cert")) == (SECRET.id, "bank/cert")
