"""Which frames of a film are read: parts, rates, times."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facekit.errors import CardError, InputError
from facekit.storage.folder import Source
from facekit.video.frames import Frame, Selection, estimate, parse_time, select
from facekit.video.stills import FrameFolder, in_order_of_numbers


class Card:
    """A picture that knows its place."""

    def __init__(self, number):
        self.number = number

    def open(self, number, time, lasts):
        return Frame(number, time, lasts, np.full((2, 2, 3), self.number, np.uint8))


class Deck:
    """A film of uneven times: 0, 1, 2, 4, 5, 8 tenths of a second, the last for two tenths."""

    path, size, tick, rate = Path("deck"), (2, 2), Fraction(1, 10), Fraction(6)
    length, count = Fraction(1), 6
    at = (0, 1, 2, 4, 5, 8, 10)

    def pictures(self, since):
        for number in range(self.count):
            start, end = (Fraction(time, 10) for time in self.at[number : number + 2])
            if end > since:
                yield start, end - start, Card(number)


def seen(selection, *more):
    return [(float(f.time), int(f.pixels[0, 0, 0])) for f in select(Deck(), selection, *more)]


def test_all_frames_have_their_own_times():
    assert seen(Selection()) == [(0, 0), (0.1, 1), (0.2, 2), (0.4, 3), (0.5, 4), (0.8, 5)]


def test_a_part_begins_and_ends_where_it_should():
    part = Selection(Fraction(1, 10), Fraction(5, 10))
    assert seen(part) == [(0.1, 1), (0.2, 2), (0.4, 3)]
    assert [f.number for f in select(Deck(), part)] == [0, 1, 2]


def test_another_rate_shows_what_is_on_screen_at_that_time():
    assert seen(Selection(fps=Fraction(5))) == [(0, 0), (0.2, 2), (0.4, 3), (0.6, 4), (0.8, 5)]
    assert [number for _, number in seen(Selection(fps=Fraction(20)))][:6] == [0, 0, 1, 1, 2, 2]
    assert seen(Selection(Fraction(3, 10), Fraction(7, 10), Fraction(5))) == [(0.3, 2), (0.5, 4)]


@pytest.mark.parametrize("selection", [Selection(), Selection(Fraction(1, 10)), Selection(fps=Fraction(20))])
def test_going_on_in_the_middle_gives_the_rest(selection):
    whole = list(select(Deck(), selection))
    for first in range(len(whole)):
        rest = select(Deck(), selection, first, whole[first].time)
        assert [(f.number, f.time) for f in rest] == [(f.number, f.time) for f in whole[first:]]


def test_the_number_of_frames_is_known_before():
    assert estimate(Deck(), Selection()) == 6
    assert estimate(Deck(), Selection(fps=Fraction(20))) == 20
    assert estimate(Deck(), Selection(Fraction(1, 2), fps=Fraction(10))) == 5


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1:30", 90), ("1:02:03.5", 3723.5), ("0.04", 0.04)])
def test_times_are_seconds_or_clock_times(text, seconds):
    assert float(parse_time(text, "--start")) == seconds


@pytest.mark.parametrize("text", ["soon", "-1", "1:2:3:4", "", "1e3"])
def test_other_times_are_refused(text):
    with pytest.raises(CardError, match="--end"):
        parse_time(text, "--end")


def test_frames_come_in_the_order_of_their_numbers():
    names = ["f10.png", "f9.png", "f1.png", "e2.png"]
    assert [s.name for s in in_order_of_numbers([Source(Path(), n) for n in names])] == [
        "e2.png", "f1.png", "f9.png", "f10.png",
    ]  # fmt: skip


def test_a_frame_of_another_size_is_named(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    Image.new("RGB", (4, 6)).save(tmp_path / "2.png")
    folder = FrameFolder(tmp_path, [Source(tmp_path, n) for n in ("1.png", "2.png")], Selection())
    with pytest.raises(InputError, match=r"2\.png"):
        list(folder.pictures(Fraction(0)))
