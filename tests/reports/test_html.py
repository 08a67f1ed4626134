"""Pages from templates: escaped, complete, and with links that lead to the file."""

import jinja2
import pytest

from facekit.reports import html

RUN = {"title": "<b>&{0}", "card": "a: <script>", "plot": None, "scores": [], "best": None, "previews": [],
       "running": False, "step": 1, "steps": 2, "status": "half"}  # fmt: skip


def test_every_value_is_escaped():
    page = html.render("run.html", **{**RUN, "previews": [(1, 'x" onload="y.png')]})
    assert "<script>" not in page and "a: &lt;script&gt;" in page
    assert page.count("&lt;b&gt;&amp;{0}") == 2
    assert 'onload="' not in page


def test_control_characters_are_shown_as_escapes():
    page = html.render("run.html", **{**RUN, "title": "\x1b[31m\x9b\u202e", "card": "a: 1\n\tb: \x07"})
    assert not any(c in page for c in "\x1b\x9b\u202e\x07")
    assert "\\x1b[31m\\x9b\\u202e" in page and "a: 1\n\tb: \\x07" in page


def test_a_missing_value_is_an_error_not_an_empty_place():
    with pytest.raises(jinja2.UndefinedError, match="plot"):
        html.render("run.html", **{key: value for key, value in RUN.items() if key != "plot"})


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("a/b c.png", "a/b%20c.png"),
        ("50%#1?.png", "50%25%231%3F.png"),
        ("é.png", "%C3%A9.png"),
        ("caf\udce9.png", "caf%E9.png"),
    ],
)
def test_a_link_leads_to_the_file(name, address):
    assert html.link(name) == address


def test_a_page_is_written_whole(tmp_path):
    html.write(tmp_path / "new/page.html", "run.html", **{**RUN, "title": "caf\udce9"})
    page = (tmp_path / "new/page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
