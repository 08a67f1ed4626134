"""Boards read and walked: both engines, both formats, every fault; what is chosen, and what a file must be."""

import io
import json
import zlib

import pytest
from PIL import Image

from booru import Booru, Entry, picture
from facekit import sources
from facekit.errors import CardError, FacekitError, InputError
from facekit.sources import filters, find, sites, tag_presets
from facekit.sources.danbooru import Danbooru, SafeDanbooru
from facekit.sources.errors import FetchError
from facekit.sources.filters import Filters
from facekit.sources.http_client import HttpClient
from facekit.sources.local import Local
from facekit.sources.post import Post, checksum, ending, natural, number, text, words
from facekit.sources.safebooru import Safebooru
from facekit.sources.url_guard import Hosts
from facekit.sources.urls import Urls
from facekit.sources.validate import validate

BOARDS = [Safebooru, Danbooru]
PAGE_FAULTS = ("500", "503", "429", "html", "error", "limited", "empty", "cut", "truncated", "malformed", "repeated")
JPEG = {"md5": None, "kind": "jpg", "url": "http://a.org/1.jpg", "page": "http://a.org/1"}


@pytest.fixture
def board():
    with Booru([Entry(i) for i in range(1, 51)]) as server:
        yield server


def opened(kind, address):
    site = kind(address=address)
    site.open()
    return site


def client(site, tries=6):
    return HttpClient(Hosts(site.hosts, site.ports, local=True), 1e6, tries, sleep=lambda seconds: None)


def walk(kind, board, anchor=None, tags=("solo",), tries=6):
    site = opened(kind, board.address)
    asking = client(site, tries)
    pages = []
    for page in site.pages(asking, list(tags), anchor):
        pages.append(page)
        if page.end:
            return pages
    return pytest.fail("no end")


def ids(pages):
    return [post.number for page in pages for post in page.posts]


# which sources there are


def test_sites_are_found_by_name_and_a_typo_is_reported():
    assert {"safebooru", "danbooru", "safebooru.donmai.us", "urls", "local"} <= sites().keys()
    assert find("safebooru.donmai.us") is SafeDanbooru
    with pytest.raises(CardError, match="did you mean 'danbooru'"):
        find("danboru")


THIRD = """
from facekit.sources.safebooru import Safebooru

class Third(Safebooru):
    name, home, domain = "third", "https://third.example", "third.example"

SITES = {"third": Third}
"""


def test_a_third_site_is_one_more_file(tmp_path, monkeypatch, board):
    (tmp_path / "third.py").write_text(THIRD)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    kind = find("third")
    assert opened(kind, "").hosts == ["third.example"] and ids(walk(kind, board)) == list(range(50, 0, -1))


def test_a_site_asks_its_own_hosts_only():
    for kind, hosts in ((Safebooru, ["safebooru.org"]), (Danbooru, ["donmai.us"]), (SafeDanbooru, ["donmai.us"])):
        site = opened(kind, "")
        assert site.hosts == hosts and site.address == kind.home
    assert opened(Safebooru, "http://board.example:8080/").hosts == ["board.example"]


@pytest.mark.parametrize(
    "address", ["file:///x", "board", "http://", "http://me:word@a.org", "http://[", "http://a:b:c"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(CardError, match="--address") as caught:
        opened(Safebooru, address)
    assert "word" not in caught.value.message


# what a site says is cleaned


def test_numbers_are_numbers():
    assert [number(v) for v in (5, "7", " -3 ", "1e3", "", None, True, 1.5, [], 10**30, "9" * 40, "٣")] == [
        5, 7, -3, None, None, None, None, None, None, None, None, None,
    ]  # fmt: skip
    assert natural("0") is None and natural(-1) is None and natural("12") == 12


def test_texts_have_no_control_characters_and_an_end():
    assert text("a\x1b[2Jb\x00\u202e\n") == "a [2Jb" and text(None) == "" and text(["x"]) == ""
    assert len(text("x" * 10**6)) == 2000 and words(" a  b a ") == ("a", "b") and words(7) == ()
    assert json.dumps(text("\ud800x")) == '"x"'


def test_checksums_and_endings():
    assert checksum("A" * 32) == "a" * 32 and checksum("../" + "a" * 29) is None and checksum(None) is None
    assert (
        ending("http://a.org/x/y.JPEG?z=.gif") == "jpg" and ending("http://a.org/x") == "" and ending("http://[") == ""
    )


def test_a_post_survives_storing():
    post = Post("5", "u", "p", tags=("a", "b"), extra={"licence": "CC0"})
    assert Post.load(json.loads(json.dumps(post.plain()))) == post


ODD_ROWS = [
    {}, {"id": None}, {"id": "x"}, {"id": -1}, {"id": {}}, {"id": 10**40}, {"id": "../../etc"}, {"id": 1.5},
    {"id": True},
]  # fmt: skip


@pytest.mark.parametrize("kind", BOARDS)
def test_rows_without_a_number_are_passed_over(kind):
    body = json.dumps([*ODD_ROWS, None, 5, "x", [], {"id": 3}]).encode()
    assert [post.id for post in opened(kind, "").parse(body)] == ["3"]


@pytest.mark.parametrize("kind", BOARDS)
def test_fields_of_wrong_kinds_are_left_out(kind):
    words = "md5 hash file_url width height image_width image_height rating score tags tag_string tag_string_artist"
    keys = f"{words} source created_at file_ext file_size directory image".split()
    for value in (None, [], {}, 5.5, True, -7, "", "\x00", "x" * 5000, "../../../etc/passwd"):
        (post,) = opened(kind, "").parse(json.dumps([{"id": 3, **dict.fromkeys(keys, value)}]).encode())
        assert post.id == "3" and post.md5 is None and post.rating is None and len(post.source) <= 2000


def test_the_xml_of_gelbooru_is_read(board):
    (post,) = opened(Safebooru, board.address).parse(board.dapi_xml([Entry(9, " smile solo ", more={"score": -4})], 1))
    entry = Entry(9)
    assert post == Post(
        id="9", url=f"{board.address}/images/9.jpg", page=f"{board.address}/index.php?page=post&s=view&id=9",
        md5=entry.md5,
        kind="jpg", width=24, height=32, rating="g", score=-4, tags=("smile", "solo"),
        source="https://example.org/art/9",
        created="2024-01-02T03:04:05-05:00",
    )  # fmt: skip


def test_the_json_of_gelbooru_is_read_and_the_address_built(board):
    site = opened(Safebooru, board.address)
    (post,) = site.parse(json.dumps([board.dapi_json(Entry(9))]).encode())
    assert (post.url, post.md5, post.rating) == (f"{board.address}/images/7/9.jpg", Entry(9).md5, "g")
    (evil,) = site.parse(b'[{"id": 1, "directory": "../..", "image": "//evil.org/x.jpg"}]')
    assert evil.url == f"{board.address}/images/..%2F../%2F%2Fevil.org%2Fx.jpg".replace("..%2F..", "..%2F..")
    (newer,) = site.parse(b'{"@attributes": {"count": 1}, "post": [{"id": 2, "file_url": "/images/2.png"}]}')
    assert newer.url == f"{board.address}/images/2.png" and newer.kind == "png"
    assert site.parse(b'{"@attributes": {"count": 0}}') == site.parse(b"") == site.parse(b"[]") == []


@pytest.mark.parametrize(
    ("told", "rating"),
    [("s", "g"), ("safe", "g"), ("general", "g"), ("Sensitive", "s"), ("q", "q"), ("questionable", "q"), ("e", "e"),
     ("explicit", "e"), ("", None), ("?", None)],
)  # fmt: skip
def test_spellings_of_ratings(told, rating):
    (post,) = opened(Safebooru, "").parse(json.dumps([{"id": 1, "rating": told}]).encode())
    assert post.rating == rating


def test_danbooru_is_read_and_hidden_posts_have_no_file(board):
    site = opened(Danbooru, board.address)
    seen, hidden = site.parse(json.dumps([board.danbooru(Entry(9)), board.danbooru(Entry(8, hidden=True))]).encode())
    assert (seen.artist, seen.bytes, seen.md5) == ("some_artist", len(Entry(9).data), Entry(9).md5)
    assert seen.page == f"{board.address}/posts/9" and hidden.url is None and hidden.md5 is None


BOMB = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">'
BOMB += b'<!ENTITY b "&a;&a;">]><posts><post id="1" tags="&b;"/></posts>'
NO_PAGES = [
    b"<html></html>", b"<!DOCTYPE html><html>", b"<posts", b"<posts><post id='1'></posts>", b"{", b"[{]", b"null", b"5",
    b'"x"', b'{"a": 1}', b"Too deep! Pull it back some.", b"\xff\xfe\x00", b"[" * 100_000, b"<a>" * 50_000, BOMB,
    b'<posts count="7"></posts>', b'<?xml version="1.0"?><response success="false" reason="limited"/>',
    b'{"success": false, "message": "no"}', "<posts/>".encode("utf-16"),
]  # fmt: skip


@pytest.mark.parametrize("body", NO_PAGES, ids=range(len(NO_PAGES)))
def test_an_answer_that_is_not_a_page_is_retried_later(body):
    with pytest.raises(FetchError) as caught:
        opened(Safebooru, "").parse(body)
    assert caught.value.again and len(caught.value.message) < 300
    if not body.startswith(b"<"):
        with pytest.raises(FetchError):
            opened(Danbooru, "").parse(body)


# walking


@pytest.mark.parametrize("kind", BOARDS)
def test_a_walk_sees_every_post_once_from_the_newest_down(board, kind):
    assert ids(walk(kind, board)) == list(range(50, 0, -1))


@pytest.mark.parametrize("kind", BOARDS)
def test_a_walk_never_requests_page_numbers(board, kind):
    walk(kind, board)
    asked = [key for what, key, _ in board.log if what == "page"]
    assert all("pid=0" in key or "page=b" in key for key in asked[1:]) and len(asked) == 5  # 20, 20, 11, the end, twice


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOARDS)
def test_a_walk_continues_below_an_id(board, kind):
    assert ids(walk(kind, board, anchor=13)) == list(range(12, 0, -1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOARDS)
@pytest.mark.parametrize("fault", [*PAGE_FAULTS, "swapped", "shuffled"])
def test_no_fault_of_one_page_loses_or_doubles_a_post(board, kind, fault):
    board.planned["page"].extend(["", fault, "", fault, fault, ""])
    assert ids(walk(kind, board)) == list(range(50, 0, -1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOARDS)
@pytest.mark.parametrize("fault", PAGE_FAULTS)
def test_a_fault_at_the_beginning_or_the_end_does_not_end_the_walk(board, kind, fault):
    board.planned["page"].extend([fault, "", "", "", "", fault])
    assert ids(walk(kind, board)) == list(range(50, 0, -1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOARDS)
def test_posts_that_come_and_go_meanwhile_do_no_harm(board, kind):
    site = opened(kind, board.address)
    pages = site.pages(client(site), ["solo"], None)
    first = next(pages)
    assert ids([first])[-1] == 31
    board.entries = [Entry(60), *[e for e in board.entries if e.id not in (31, 25)]]  # the last one seen has gone
    rest = []
    for page in pages:
        rest.append(page)
        if page.end:
            break
    assert ids(rest) == [i for i in range(30, 0, -1) if i != 25]


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOARDS)
def test_short_pages_do_not_end_the_walk(board, kind):
    board.page = 3
    assert ids(walk(kind, board)) == list(range(50, 0, -1))


@pytest.mark.parametrize("kind", BOARDS)
def test_no_posts_at_all_are_an_end(board, kind):
    assert ids(walk(kind, board, tags=["nothing_has_this"])) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOARDS)
def test_a_site_that_repeats_one_page_for_ever_is_given_up(board, kind):
    board.planned["page"].append("")
    board.always["page"] = ""
    site = opened(kind, board.address)
    pages = site.pages(client(site), ["solo"], None)
    next(pages)
    board.always["page"] = "repeated"
    with pytest.raises(InputError, match="repeats earlier posts"):
        next(pages)


def test_broken_xml_is_asked_for_again_as_json(board):
    board.planned["page"].append("malformed")
    walk(Safebooru, board)
    assert ["json=1" in key for _, key, _ in board.log][:3] == [False, True, False]


@pytest.mark.parametrize(
    ("kind", "status", "code", "words"),
    [
        (Danbooru, "422", 2, "2 tags at most"), (Danbooru, "410", 2, "this deep"), (Danbooru, "401", 3, "login"),
        (Danbooru, "500", 3, "server failed"), (Safebooru, "403", 3, "forbidden"), (Safebooru, "429", 3, "too many"),
        (Safebooru, "404", 3, "not found"), (Safebooru, "503", 3, "overloaded"), (Safebooru, "html", 3, "HTML"),
    ],
)  # fmt: skip
def test_a_site_that_cannot_be_read_is_explained(board, kind, status, code, words):
    board.always["page"] = status
    with pytest.raises(FacekitError, match=words) as caught:
        walk(kind, board, tries=2)
    assert caught.value.code == code and caught.value.hint


# tags


def test_more_than_two_tags_are_refused_before_asking_and_metatags_are_free(monkeypatch):
    for name in ("LOGIN", "KEY"):
        monkeypatch.delenv(f"FACEKIT_DANBOORU_{name}", raising=False)
    site = opened(Danbooru, "")
    with pytest.raises(CardError, match="2 tags at most") as caught:
        site.query(["solo", "portrait", "smile"], Filters())
    assert "--want" in caught.value.hint
    asked = site.query(["solo", "-portrait", "age:<1y", "width:>=512"], Filters(min_score=3))
    assert asked == ["solo", "-portrait", "age:<1y", "width:>=512", "rating:g", "filetype:jpg,png,webp", "score:>=3"]
    with pytest.raises(CardError, match="2 tags"):
        site.query(["solo", "child", "score"], Filters())  # tags of those names, not metatags
    monkeypatch.setenv("FACEKIT_DANBOORU_LOGIN", "me")
    monkeypatch.setenv("FACEKIT_DANBOORU_KEY", "word")
    assert site.query(["a", "b", "c"], Filters())[:3] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", BOARDS)
@pytest.mark.parametrize(
    ("tag", "words"),
    [("order:score", "order"), ("sort:score:desc", "order"), ("rating:e", "--rating"), ("-rating:g", "--rating"),
     ("limit:5", "--limit")],
)  # fmt: skip
def test_tags_that_cannot_be_walked_are_refused_with_the_reason(kind, tag, words):
    with pytest.raises(CardError, match=r"among the tags|changes the order") as caught:
        opened(kind, "").query([tag], Filters())
    assert words in caught.value.message + caught.value.hint


@pytest.mark.parametrize("tag", ["md5:abc", "ordfav:me", "id:1,2,3", "random:5"])
def test_danbooru_refuses_lists_and_orders(tag):
    with pytest.raises(CardError):
        opened(Danbooru, "").query([tag], Filters())


def test_the_four_expressions_of_the_paper():
    assert tag_presets.labels("all") == ("angry", "sad", "smile", "surprised")
    assert tag_presets.labels("smile, crying") == ("smile", "crying")
    assert set(tag_presets.others("smile", tag_presets.FOUR)) >= {"angry", "sad", "surprised", "monochrome"}
    assert "sad" not in tag_presets.others("crying", ("crying", "smile"))
    for wrong in ("smiel", ""):
        with pytest.raises(CardError, match="--expression"):
            tag_presets.labels(wrong)


# filters


@pytest.mark.parametrize(
    ("wanted", "post", "why"),
    [
        ({}, {"rating": "g"}, None), ({}, {"rating": "s"}, "another rating"), ({}, {"rating": None}, "no rating"),
        ({"ratings": ("g", "q")}, {"rating": "q"}, None), ({"ratings": None}, {"rating": None}, None),
        ({}, {"url": None}, "no file address"), ({}, {"kind": "mp4"}, "another file type"),
        ({}, {"kind": "zip"}, "another file type"), ({}, {"kind": "webm"}, "another file type"),
        ({}, {"kind": "gif"}, "another file type"), ({"kinds": ("gif",)}, {"kind": "gif"}, None),
        ({}, {"kind": ""}, None),
        ({"min_score": 3}, {"score": 2}, "low score"), ({"min_score": 3}, {"score": None}, "low score"),
        ({"min_score": 3}, {"score": 3}, None), ({"want": ("a",)}, {"tags": ("b",)}, "without a wanted tag"),
        ({"want": ("a",)}, {"tags": ("a", "b")}, None), ({"without": ("a",)}, {"tags": ("a",)}, "with an unwanted tag"),
        ({"max_bytes": 9}, {"bytes": 10}, "too large a file"), ({"min_size": 33}, {}, "too small"),
        ({"min_size": 32}, {}, None), ({"aspect": (0.9, 2)}, {}, "another aspect"), ({"aspect": (0.5, 2)}, {}, None),
        ({}, {"width": 20_000, "height": 20_000}, "too many pixels"),
    ],
)  # fmt: skip
def test_what_is_wanted(wanted, post, why):
    told = {"rating": "g", "width": 32, "height": 48, "tags": (), **JPEG, **post}
    assert Filters(**wanted).refuse(Post("1", **told)) == why


def test_the_options_of_filters_are_read_and_wrong_ones_refused():
    assert filters.ratings("general,S q") == ("g", "s", "q") and filters.kinds("JPEG, .png") == ("jpg", "png")
    assert filters.aspect_of("0.5:2") == (0.5, 2) and filters.aspect_of(None)[0] == 0
    for read, wrong in (
        (filters.ratings, "safe-ish"), (filters.ratings, ""), (filters.kinds, "mp4"), (filters.kinds, ","),
        (filters.aspect_of, "2"), (filters.aspect_of, "2:1"), (filters.aspect_of, "a:b"), (filters.aspect_of, "nan:1"),
    ):  # fmt: skip
        with pytest.raises(CardError, match="--"):
            read(wrong)


# what a file must be


def check(tmp_path, data, wanted=None, **post):
    path = tmp_path / "part"
    path.write_bytes(data)
    return validate(path, Post("1", **{**JPEG, **post}), wanted or Filters())


def test_a_good_file_is_proved_by_its_content(tmp_path):
    proof = check(tmp_path, picture(1, (24, 32), "PNG"), kind="jpg")
    assert (proof.kind, proof.width, proof.height, proof.bytes) == ("png", 24, 32, len(picture(1, (24, 32), "PNG")))
    assert check(tmp_path, picture(1), md5=Entry(1).md5).md5 == Entry(1).md5


def bomb(width=60_000, height=60_000):
    """Return a PNG of a few kilobytes that claims to be enormous."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    body = zlib.compress(b"\0" * 10**6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words", "again"),
    [
        (b"", "empty", True), (b"<!DOCTYPE html><html>", "HTML", True), (b'{"success": false}', "JSON", True),
        (picture(1)[:300], "cannot be decoded|not an image", True), (b"hello", "not an image", True),
        (b"PK\x03\x04aaaa", "ZIP archive", False), (b"\x1aE\xdf\xa3aaaa", "video", False),
        (b"\0\0\0\x20ftypmp42", "video", False), (b"\xff\xd8\xff" + b"x" * 500, "not an image|decoded", True),
        (b"\0\0\0\x20ftypavif", "is AVIF", False), (b"II*\0aaaa", "is TIFF", False),
        (bomb(), "too many", False), (bomb(12_000, 12_000), "too many pixels", False),
        (picture(1, (24, 32), "GIF"), "another file type", False),
    ],
)  # fmt: skip
def test_an_image_that_fails_the_filters_is_refused(tmp_path, data, words, again):
    with pytest.raises(FetchError, match=words) as caught:
        check(tmp_path, data)
    assert caught.value.again == again and str(tmp_path) not in caught.value.message


def test_wrong_bytes_and_a_wrong_size_are_refused(tmp_path):
    with pytest.raises(FetchError, match="md5") as caught:
        check(tmp_path, picture(2), md5=Entry(1).md5)
    assert caught.value.again
    with pytest.raises(FetchError, match="too small") as caught:
        check(tmp_path, picture(2), Filters(min_size=100), width=500, height=500)
    assert caught.value.stage == "filter" and not caught.value.again


def test_a_cut_image_whose_md5_is_right_is_not_fetched_again(tmp_path):
    import hashlib

    cut = picture(1, (64, 64))[:-200]
    with pytest.raises(FetchError) as caught:
        check(tmp_path, cut, md5=hashlib.md5(cut).hexdigest())
    assert not caught.value.again


# lists and folders


def test_a_list_of_addresses(tmp_path):
    (tmp_path / "list.txt").write_text(
        "\ufeffhttp://a.org/1.jpg\n\n# no\n http://www.b.org:8080/2.png?token=word \nhttp://a.org/1.jpg\n"
    )
    source = Urls(given=str(tmp_path / "list.txt"))
    source.open()
    first, last = source.pages(None, [], None)
    assert [post.url for post in first.posts] == ["http://a.org/1.jpg", "http://www.b.org:8080/2.png?token=word"]
    assert first.posts[1].page.endswith("token=...") and last.end and source.total == 2
    assert source.hosts == ["a.org", "b.org"] and 8080 in source.ports
    assert len({post.id for post in first.posts}) == 2 and not first.end


@pytest.mark.parametrize("content", [None, "", "# nothing\n"])
def test_an_empty_or_missing_list_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "list.txt").write_text(content)
    with pytest.raises(InputError, match=r"list\.txt"):
        Urls(given=str(tmp_path / "list.txt")).open()


def test_a_list_comes_from_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"http://a.org/1.jpg\n")))
    source = Urls(given="-")
    source.open()
    assert source.lines == ["http://a.org/1.jpg"]


def test_a_folder_gives_its_images_with_what_its_manifest_says(tmp_path):
    (tmp_path / "x").mkdir()
    Image.open(io.BytesIO(picture(1))).save(tmp_path / "x/é ü.jpg")
    row = {"file": "x/é ü.jpg", "licence": "CC0", "source": "https://example.org", "tags": ["a", "b"], "md5": "no"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    source = Local(given=str(tmp_path))
    source.open()
    first, _ = source.pages(None, [], None)
    (post,) = first.posts
    assert (post.label, post.source, post.tags) == ("x", "https://example.org", ("a", "b"))
    assert post.extra == {"licence": "CC0", "tags": ["a", "b"], "copied_from": "x/é ü.jpg"}
