from builder.images.built_images import BuiltImage
from builder.maintenance.image_publisher import missing
from builder.maintenance.pruning import Needs

ID, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def needs(*references: str, built: tuple[BuiltImage, ...] = ()) -> Needs:
    return Needs(set(references), set(), set(), {"default": built})


def test_an_image_that_a_revision_is_pinned_to_may_be_missing() -> None:
    assert missing(needs("shop:1", f"shop@{ID}"), "n1", ()) == {ID: "shop"}


def test_what_the_registry_has_is_not_missing() -> None:
    assert missing(needs(f"shop@{ID}", f"cart@{OTHER}"), "n1", {ID}) == {OTHER: "cart"}


def test_builds_of_this_machine_are_missing_and_those_of_others_are_their_duty() -> None:
    built = (BuiltImage("a:1", ID, 0.0, node="n1"), BuiltImage("b:1", OTHER, 0.0, node="n2"))
    assert missing(needs(built=built), "n1", ()) == {ID: ""}


def test_builds_from_before_there_were_several_machines_are_missing() -> None:
    assert missing(needs(built=(BuiltImage("a:1", ID, 0.0),)), "n1", ()) == {ID: ""}


def test_the_registry_keeps_what_revisions_and_builds_need() -> None:
    assert needs(f"shop@{ID}", "plain:1", built=(BuiltImage("b:1", OTHER, 0.0),)).ids == {ID, OTHER}
