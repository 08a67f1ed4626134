"""Contact sheets and the page of previews."""

import numpy as np
import pytest
from PIL import Image

import toy
from facekit.reports import contact_sheet
from facekit.storage import images

RED, BLUE, PAPER = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def plain(colour, size=(10, 10)):
    return Image.new("RGB", size, colour)


def boxes(page: Image.Image, colour) -> tuple[int, int, int, int] | None:
    """Return the box around all pixels of a colour."""
    hit = (np.asarray(page) == colour).all(-1)
    if not hit.any():
        return None
    ys, xs = np.where(hit)
    return (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)


@pytest.mark.parametrize(
    ("rows", "columns", "options", "size"),
    [
        (1, 1, {}, (6 + 32 + 6, 6 + 32 + 6)),
        (2, 3, {}, (3 * 38 + 6, 6 + 2 * 38)),
        (2, 3, {"titles": ["a", "b", "c"]}, (3 * 38 + 6, 22 + 6 + 2 * 38)),
        (2, 3, {"labels": ["one", "two"]}, (3 * 38 + 6, 6 + 2 * 53)),
        (5, 2, {"groups": 2}, (2 * (2 * 38 + 6), 6 + 3 * 38)),
        (2, 1, {"groups": 9}, (2 * (38 + 6), 6 + 38)),
    ],
)
def test_a_sheet_is_as_large_as_its_cells(rows, columns, options, size):
    page = contact_sheet.contact_sheet([[plain(RED)] * columns] * rows, size=32, **options)
    assert page.size == size and page.mode == "RGB"


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_a_sheet_of_nothing_is_blank(rows):
    page = contact_sheet.contact_sheet(rows, ["input"], ["name"] * len(rows), size=64)
    assert min(page.size) > 0 and boxes(page, RED) is None


def test_images_stand_in_their_cells():
    page = contact_sheet.contact_sheet([[plain(RED), plain(BLUE)], [plain(BLUE)]], size=32)
    assert boxes(page, RED) == (6, 6, 38, 38)
    assert page.getpixel((50, 20)) == BLUE and page.getpixel((20, 50)) == BLUE
    assert page.getpixel((50, 50)) == PAPER


def test_groups_stand_side_by_side_and_are_read_along_the_line():
    page = contact_sheet.contact_sheet([[plain(RED)], [plain(BLUE)], [plain(RED)]], size=32, groups=2)
    assert page.getpixel((20, 20)) == RED and page.getpixel((66, 20)) == BLUE and page.getpixel((20, 60)) == RED


@pytest.mark.parametrize("shape", [(40, 10), (10, 40), (400, 1), (1, 1), (32, 32)])
def test_images_keep_their_proportions_in_the_middle_of_the_cell(shape):
    left, top, right, bottom = boxes(contact_sheet.contact_sheet([[plain(RED, shape)]], size=32), RED)
    scale = 32 / max(shape)
    assert (right - left, bottom - top) == tuple(max(1, round(edge * scale)) for edge in shape)
    assert abs((left + right) / 2 - 22) <= 0.5 and abs((top + bottom) / 2 - 22) <= 0.5


def ink(page: Image.Image) -> tuple[int, int, int, int] | None:
    """Return the box around whatever is darker than paper."""
    return Image.eval(page.convert("L"), lambda level: 255 if level < 200 else 0).getbbox()


@pytest.mark.parametrize("text", ["x" * 500, "a long name of a photo that goes on and on.png", "写真" * 99, "W"])
def test_titles_and_labels_are_cut_to_their_width(text):
    white = [plain(PAPER), plain(PAPER)]
    titled = ink(contact_sheet.contact_sheet([white], titles=[text], size=48))
    labelled = ink(contact_sheet.contact_sheet([white], labels=[text], size=48))
    assert titled[0] >= 5 and titled[2] <= 6 + 48 + 1
    assert labelled[0] >= 5 and labelled[2] <= 6 + 2 * 54 + 1


@pytest.mark.parametrize("text", ["", "line\nbreak", "tab\t", "\udcff.png", "\x00", "…"])
def test_odd_labels_are_written_somehow(text):
    assert contact_sheet.contact_sheet([[plain(RED)]], titles=[text], labels=[text], size=48).width == 60


def test_a_sheet_is_saved_whole(tmp_path):
    contact_sheet.save_sheet(
        tmp_path / "sheets/a.png", [[toy.picture(), toy.picture(16, 1)]], titles=["in", "out"], size=64
    )
    assert images.read(tmp_path / "sheets/a.png").size == (2 * 70 + 6, 22 + 6 + 70)
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["a.png"]
