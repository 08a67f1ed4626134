"""What `Made` says of the images of an output folder, and how little of it it keeps."""

import tracemalloc
from pathlib import Path

import pytest

from facekit.storage.folder import Source, output_names
from facekit.storage.made import Made

SOURCES = ["a.jpg", "b.png", "b.webp", "x/c.png"]


def named(sources, tops=("",)) -> Made:
    return Made(sources, output_names([Source(Path(), name) for name in sources]), tops)


@pytest.mark.parametrize(
    "images",
    [
        (("a.png", 10, 20),),
        (("a.png", None, None),),
        (("a.png", 0, -5),),
        (("a.png", -1, 5),),
        (("a.png", 2**63, 2**80),),
        (("a.png", 1.5, "x"),),
        (("a.png", [1], {}),),
        (("other.png", 10, 20),),
        (("a.png", 10, 20), ("a.face2.png", 10, 20)),
        (("a.png", 10, 20), ("a.png", 11, 20)),
        (),
    ],
)
def test_what_is_put_is_there_whatever_it_is(images):
    made = named(SOURCES)
    for before in ((("a.png", 1, 2),), (("a.face2.png", 3, 4),)):
        made.put("a.jpg", before)
        made.put("a.jpg", images)
        assert made.of("a.jpg") == images
        assert dict(made.items()) == ({"a.jpg": images} if images else {})
        files = {file for file, *_ in images}
        assert made.count == len(files)
        for source in ("", "a.jpg", "b.png"):
            assert {file for file in ("a.png", "a.face2.png", "other.png") if made.has(file, source)} == files


def test_sources_are_found_in_any_order_and_those_of_no_run_too():
    made = named(SOURCES)
    for source in ("x/c.png", "gone.png", "a.jpg", "b.webp", "zz.png", "b.png"):
        made.put(source, ((f"{source}.png", 1, len(source)),))
    for source in ("b.png", "zz.png", "a.jpg", "gone.png", "x/c.png", "b.webp"):
        assert made.of(source) == ((f"{source}.png", 1, len(source)),)
    assert made.of("never.png") == () and made.count == 6
    assert [name for name in (*SOURCES, "gone.png", "zz.png", "") if made.is_source(name)] == SOURCES
    made.clear()
    assert made.count == 0 and not list(made.items()) and not made.has("zz.png.png")


def test_a_source_has_an_image_in_every_folder_of_the_run():
    made = named(SOURCES, ("b/", "a/"))
    made.put("a.jpg", (("b/a.png", 1, 2),))
    assert made.of("a.jpg") == (("b/a.png", 1, 2),) and made.count == 1 and not made.is_whole("a.jpg")
    made.put("a.jpg", (*made.of("a.jpg"), ("a/a.png", 1, 2)))
    assert sorted(made.of("a.jpg")) == [("a/a.png", 1, 2), ("b/a.png", 1, 2)] and made.count == 2
    assert made.is_whole("a.jpg") and not made.is_whole("gone.jpg")
    assert made.expected("b.png") == ["a/b_png.png", "b/b_png.png"]
    assert sorted(made.all_expected())[:2] == [("a.jpg", "a/a.png"), ("a.jpg", "b/a.png")]


def test_names_need_not_be_known():
    made = Made(SOURCES, {"b.png": "b.png"})
    for source in SOURCES:
        made.put(source, ((f"{source[0]}.png", 1, 2),))
    made.put("a.jpg", ())
    assert made.of("a.jpg") == () and made.of("x/c.png") == (("x.png", 1, 2),) and made.count == 2
    assert list(made.all_expected()) == [("b.png", "b.png")] and made.expected("a.jpg") == []


def test_a_file_of_two_sources_is_one_image():
    made = named(SOURCES)
    made.put("a.jpg", (("a.png", 1, 2),))
    made.put("a.gif", (("a.png", 3, 4), ("more.png", 3, 4)))
    assert made.count == 2


@pytest.mark.slow
@pytest.mark.parametrize("tops", [("",), ("a/", "b/")])
def test_of_an_image_with_the_name_of_its_source_little_is_kept(tops):
    sources = [f"{number:06d}.jpg" for number in range(20_000)]
    tracemalloc.start()
    made = named(sources, tops)
    for number, source in enumerate(sources):
        made.put(source, tuple((f"{top}{number:06d}.png", 10**6 + number, 10**18 + number) for top in tops))
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert made.count == len(tops) * len(sources)
    assert kept < 60 * len(sources)
