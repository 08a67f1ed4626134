"""`facekit translate` of films: what is in the picture changes, and nothing else."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageSequence
from torch import nn

import clips
import toy
from facekit.faces import Face, find_detector
from facekit.faces.alignment import landmarks_of_eyes
from facekit.inference import film_faces
from facekit.inference import translate_film as film
from facekit.inference.head_mask import HeadMask
from facekit.recipe_api import checkpoint

av = clips.av
TAGS = ("colorspace", "color_range", "color_primaries", "color_trc")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with weights that make everything white: small ones, and some for parts to be seen."""
    monkeypatch.chdir(tmp_path)
    for name, size in (("white", 16), ("large", 64)):
        net = toy.Toy({}, size).nets()["ab"]
        for p in net.parameters():
            nn.init.constant_(p, 0)
        nn.init.constant_(net[2].bias, 20)
        values = {"recipe": str(toy.FILE), "data": {"size": size}, "domains": {"a": "photo", "b": "anime"}}
        checkpoint.save_model(Path(f"{name}.safetensors"), nn.ModuleDict({"ab": net}), values)
    torch.manual_seed(0)
    return tmp_path


class PortraitDetector:
    """Finds the face of `clips.portrait` by the right edge of its picture: the cascade takes a second for that."""

    name = "cascade"

    def detect(self, image, effort="first"):
        columns = np.flatnonzero((np.abs(image.astype(int) - clips.GREY).max(2) > 60).any(0))
        if not len(columns):
            return []
        x, y = columns[-1] - 67, 62
        return [Face((x - 30, 40, x + 30, 100), 1.0, landmarks_of_eyes(np.array([[x - 12, y], [x + 12, y]])), True)]


@pytest.fixture
def translate(facekit, here, monkeypatch):
    """Runs `facekit translate IN OUT` with the white weights; with `real` the cascade and the segmenter work."""

    def run(source, out, *more, real=False):
        monkeypatch.setattr(film, "find_detector", find_detector if real else lambda *given: PortraitDetector())
        monkeypatch.setattr(film_faces, "HeadMask", HeadMask if real else lambda: lambda crop: None)
        own = [
            "--weights",
            f"{'large' if real else 'white'}.safetensors",
            "--recipe",
            toy.FILE,
            "--detector",
            "cascade",
        ]
        return facekit("translate", source, out, *own, *more)

    return run


def middle(number: int, step: float = 2) -> tuple[int, int]:
    """Where the face of a portrait is: row and column."""
    return 70, round(66 + number * step)


def white_at(frame: np.ndarray, number: int) -> bool:
    row, column = middle(number)
    return bool((frame[row - 6 : row + 6, column - 6 : column + 6] > 235).all())


@pytest.mark.slow
def test_films_are_enlarged_by_the_net_only_where_it_is_asked_for(translate):
    clips.write(Path("a.mp4"), times=[0, 1])
    asked = {"plain.mp4": (), "none.mp4": ("--upscaler", "none"), "sharp.mp4": ("--upscaler", "upscaler")}
    inputs = {}
    for out, more in asked.items():
        assert translate("a.mp4", out, *more).code == 0
        inputs[out] = yaml.safe_load(Path(f"{out}.card.yaml").read_text())["inputs"]
    assert [name for name, found in inputs.items() if "upscaler" in found] == ["sharp.mp4"]
    assert Path("plain.mp4").read_bytes() == Path("none.mp4").read_bytes() != Path("sharp.mp4").read_bytes()


def info(path) -> dict:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        first = next(container.decode(stream))
        return {
            "codec": context.name, "pix_fmt": context.pix_fmt, "size": (context.width, context.height),
            "colours": [int(getattr(first, each)) or 1 for each in TAGS],  # a range without a tag is the limited one
            "turn": first.rotation, "sound": [each.codec_context.name for each in container.streams.audio],
        }  # fmt: skip


def sound(path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.slow
def test_a_face_is_followed_and_everything_else_stays(translate):
    uneven = [0, 1, 2, 5, 6, 9, 10, 11]
    tags = {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}
    clips.write(Path("a.mp4"), times=uneven, sound="aac", **tags)
    done = translate("a.mp4", "out.mp4", real=True)
    assert done.code == 0, done.err
    before, after = clips.frames("a.mp4"), clips.frames("out.mp4")
    assert clips.times("out.mp4") == pytest.approx([t / 10 for t in uneven])
    assert [white_at(frame, i) for i, frame in enumerate(after)] == [True] * 8
    assert not any(white_at(frame, i) for i, frame in enumerate(before))
    for old, new in zip(before, after, strict=True):
        assert np.abs(old - new)[:, -16:].max() < 12 and np.abs(old - new)[:, -16:].mean() < 2
    assert info("out.mp4") == info("a.mp4")
    assert sound("out.mp4") == sound("a.mp4")
    assert sorted(p.name for p in Path().glob("out*")) == ["out.mp4", "out.mp4.card.yaml"]
    assert "nothing to do" in translate("a.mp4", "out.mp4", real=True).err
    assert translate("a.mp4", "out.mp4", "--no-smooth", real=True).code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "made"),
    [
        ("out.mp4", {"pix_fmt": "yuv420p10le", "codec": "libx265", "colorspace": 9, "color_range": 1, "color_trc": 18}),
        ("out.mkv", {"turn": 90, "sound": "aac"}),
        ("out.webm", {"sound": "aac"}),
        ("out.mov", {"color_range": 2, "colorspace": 5}),
    ],
    ids=["10-bit HDR", "turned", "WebM", "full range"],
)
def test_what_a_film_is_stays(translate, out, made):
    turn = made.get("turn", 0)

    def picture(number):
        return clips.portrait(number).rotate(-turn, expand=True)

    clips.write(Path("a.mp4"), picture, range(4), **made)
    done = translate("a.mp4", out)
    assert done.code == 0, done.err
    before, after = info("a.mp4"), info(out)
    assert after["turn"] == before["turn"] == turn
    assert after["sound"] == ([] if "sound" not in made else ["opus"] if out == "out.webm" else ["aac"])
    same = ("size", "colours") if out == "out.webm" else ("size", "colours", "pix_fmt", "codec")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    seen = [np.rot90(frame, turn // 90) for frame in clips.frames(out)]
    assert len(seen) == 4 and all(white_at(frame, number) for number, frame in enumerate(seen))
    assert clips.times(out) == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-3)


def test_odd_sizes_are_kept_or_cut_by_one(translate):
    def odd(number):
        return clips.portrait(number, (161, 141))

    clips.write(Path("odd.webm"), odd, range(2), codec="libvpx-vp9")
    assert translate("odd.webm", "out.webm").code == 0
    done = translate("odd.webm", "out.mp4")
    assert done.code == 0 and "161 x 141" in done.err
    for name, size in (("out.webm", (161, 141)), ("out.mp4", (160, 140))):
        assert info(name)["size"] == size
        assert all(white_at(frame, number) for number, frame in enumerate(clips.frames(name)))


@pytest.mark.slow
def test_a_face_that_comes_and_goes_fades_in_and_out(translate):
    def seldom(number):
        there = 4 <= number < 14 and number != 9
        return clips.portrait(0, (400, 140)) if there else Image.new("RGB", (400, 140), clips.GREY)

    clips.write(Path("a.mp4"), seldom, range(18), tick=Fraction(1, 20))
    done = translate("a.mp4", "out.mp4")
    assert done.code == 0, done.err
    light = [frame[64:76, 60:72].mean() for frame in clips.frames("out.mp4")]
    assert max(light[:4] + light[14:]) < 130  # without a face
    assert min(light[8:11]) > 160  # where there is one, also in the frame in which none was found
    assert max(light[8], light[10]) > 235
    assert light[4] < light[5] < light[6] < light[7] and light[13] < light[12] < light[11] < light[10]
    assert translate("a.mp4", "batches.mp4", "--batch", 4).code == 0
    for one, other in zip(clips.frames("out.mp4"), clips.frames("batches.mp4"), strict=True):
        assert np.abs(one - other).max() <= 8


@pytest.mark.slow
def test_one_face_or_all_of_them(translate):
    def group(number):
        both = Image.new("RGB", (300, 140), clips.GREY)
        both.paste(clips.PORTRAIT.resize((138, 120)), (0, 10))
        both.paste(clips.PORTRAIT.resize((110, 96)), (170, 20))
        return both

    clips.write(Path("a.mp4"), group, range(2))
    for faces, count in (("largest", 1), ("all", 2)):
        assert translate("a.mp4", f"{faces}.mp4", "--faces", faces, real=True).code == 0
        for frame in clips.frames(f"{faces}.mp4"):
            middles = frame[66:74, [70, 226]].mean((0, 2))
            assert (middles > 235).sum() == count and middles[0] > 235


@pytest.mark.slow
def test_a_part_at_another_rate(translate):
    clips.write(Path("a.mp4"), times=range(16), sound="aac")
    done = translate("a.mp4", "out.mp4", "--start", "0.4", "--end", "0:01.2", "--fps", 5)
    assert done.code == 0, done.err
    assert clips.times("out.mp4") == pytest.approx([0, 0.2, 0.4, 0.6])
    assert [white_at(frame, 4 + 2 * i) for i, frame in enumerate(clips.frames("out.mp4"))] == [True] * 4
    with av.open("out.mp4") as container:
        heard = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
    assert 0 <= heard[0] < 0.03 and 0.75 < heard[-1] < 0.82
    for wrong in (("--start", "soon"), ("--start", "2", "--end", "1"), ("--fps", "0"), ("--start", "99")):
        assert translate("a.mp4", "no.mp4", *wrong).code in (2, 3) and not Path("no.mp4").exists()


@pytest.mark.slow
def test_a_stopped_film_continues_and_ends_the_same(translate, monkeypatch):
    clips.write(Path("a.mp4"), times=[0, 1, 2, 4, 5, 6, 8, 9], sound="aac")
    monkeypatch.setattr(film, "PIECE", 3)
    assert translate("a.mp4", "whole.mp4").code == 0
    painted = []
    paint = film.paint

    def stopping(group, *rest):
        painted.append(len(group))
        if len(painted) == 5:
            raise KeyboardInterrupt
        return paint(group, *rest)

    monkeypatch.setattr(film, "paint", stopping)
    done = translate("a.mp4", "out.mp4", "--workers", 1)
    assert done.code == 130 and "3 frames" in done.err and not Path("out.mp4").exists()
    assert translate("a.mp4", "out.mp4", "--workers", 1, "--no-smooth").code == 2  # other options, other pieces
    before = len(painted)
    assert translate("a.mp4", "out.mp4", "--workers", 1).code == 0
    assert len(painted) - before == 5  # the second and the third piece
    assert clips.times("out.mp4") == clips.times("whole.mp4")
    assert all((a == b).all() for a, b in zip(clips.frames("out.mp4"), clips.frames("whole.mp4"), strict=True))
    assert not Path("out.mp4.parts").exists()


@pytest.mark.slow
def test_a_film_that_is_cut_short_ends_there_with_a_warning(translate):
    def noisy(number: int) -> Image.Image:  # so that all frames take about as many bytes
        face = np.asarray(clips.portrait(number), float)
        return Image.fromarray(np.uint8(np.clip(face + np.random.default_rng(number).normal(0, 9, face.shape), 0, 255)))

    whole = clips.write(Path("a.mkv"), noisy, range(12)).read_bytes()
    Path("short.mkv").write_bytes(whole[: len(whole) // 2])  # without its index and the later frames
    done = translate("short.mkv", "out.mkv")
    assert done.code == 0 and "cut short" in done.err
    assert 2 < len(clips.frames("out.mkv")) < 12
    whole = clips.write(Path("b.mp4")).read_bytes()
    Path("index.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    done = translate("index.mp4", "no.mp4")
    assert done.code == 3 and "no index" in done.err and not Path("no.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize("out", ["out.gif", "out.webp", "out.apng", "out.mp4"])
def test_animations_are_films_too(translate, out):
    first, *rest = (clips.portrait(number) for number in range(4))
    first.save("a.gif", save_all=True, append_images=rest, duration=[100, 200, 100, 500], loop=0)
    done = translate("a.gif", out)
    assert done.code == 0, done.err
    if out == "out.mp4":
        assert clips.times(out) == pytest.approx([0, 0.1, 0.3, 0.4])
        seen = clips.frames(out)
    else:
        with Image.open(out) as image:
            seen = [np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(image)]
            durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image) if frame.load() is not False]
        assert durations == [100, 200, 100, 500]
    assert [white_at(frame, number) for number, frame in enumerate(seen)] == [True] * 4
    assert translate("a.gif", "still.png").code == 0 and Image.open("still.png").size == (16, 16)


def test_folders_of_frames(translate):
    Path("in").mkdir()
    for number in (8, 9, 10):
        clips.portrait(number).save(f"in/frame{number}.png")
    assert translate("in", "out.mp4", "--fps", 20).code == 0
    assert clips.times("out.mp4") == pytest.approx([0, 0.05, 0.1])
    assert [white_at(frame, 8 + number) for number, frame in enumerate(clips.frames("out.mp4"))] == [True] * 3
    assert translate("in", "out", "--video").code == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["frame10.png", "frame8.png", "frame9.png"]
    assert white_at(np.asarray(Image.open("out/frame10.png")), 10)
    assert "nothing to do" in translate("in", "out", "--video").err


def test_frames_in_the_type_and_quality_asked_for(translate):
    Path("in").mkdir()
    for number in (8, 9):
        clips.portrait(number).save(f"in/frame{number}.png")
    sizes = []
    for quality in (10, 95):
        assert translate("in", f"of{quality}", "--video", "--format", "jpg", "--quality", quality).code == 0
        with Image.open(f"of{quality}/frame8.jpg") as image:
            assert image.format == "JPEG"
        sizes.append(Path(f"of{quality}/frame8.jpg").stat().st_size)
    assert 1.5 * sizes[0] < sizes[1]


def test_whole_frames_without_align(translate):
    clips.write(Path("a.mp4"), times=range(2))
    assert translate("a.mp4", "out.mp4", "--no-align").code == 0
    assert all((frame > 240).all() for frame in clips.frames("out.mp4"))


@pytest.mark.slow
def test_what_cannot_be_is_said_before_the_work(translate, monkeypatch):
    clips.write(Path("a.mp4"), lambda number: Image.new("RGB", (64, 48), clips.GREY), times=range(2))
    done = translate("a.mp4", "out.mp4")
    assert done.code == 3 and "no face" in done.err and "--no-align" in done.err
    for flags in (["--mask"], ["--sheet"], ["--limit", "3"], ["--shard", "1/2"], ["--rotation", "upright"]):
        assert translate("a.mp4", "no.mp4", *flags).code == 2
    assert translate("a.mp4", "no.avi").code == 2
    assert translate("a.mp4", "a.mp4").code == 2
    Path("foreign.mp4").write_bytes(b"x")
    assert translate("a.mp4", "foreign.mp4").code == 2
    Path("text.mp4").write_text("not a film")
    assert translate("text.mp4", "no.mp4").code == 3
    assert translate("gone.mp4", "no.mp4").code == 3
    monkeypatch.setitem(sys.modules, "av", None)
    done = translate("a.mp4", "no.mp4")
    assert done.code == 5 and "pip install 'facekit-anime[video]'" in done.err
    assert not Path("no.mp4").exists()


@pytest.mark.slow
def test_tags_and_place(translate):
    clips.write(Path("a.mp4"), times=range(2))
    with av.open("a.mp4") as source, av.open("tagged.mp4", "w", options={"movflags": "use_metadata_tags"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        target.metadata.update({"title": "Ada", "location": "+52.5+13.4/"})
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)

    def tags(name, *flags):
        assert translate("tagged.mp4", name, *flags).code == 0
        with av.open(name) as container:
            return container.metadata

    assert "title" not in tags("a1.mp4")
    kept = tags("a2.mp4", "--keep-exif")
    assert kept["title"] == "Ada" and not any("location" in key for key in kept)
    assert any("location" in key for key in tags("a3.mp4", "--keep-exif", "--keep-gps"))
