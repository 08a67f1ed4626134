"""The statistics and the page that `facekit align` leaves."""

import json
import random
import statistics
from collections import Counter

import yaml

from facekit.faces import report


def entry(source, score, roll=0.0, box=(0, 0, 10, 20), count=1):
    return {"source": source, "score": score, "roll": roll, "box": box, "faces_in_photo": count}


ENTRIES = {
    "a.png": entry("a.jpg", 0.9, 10.0),
    "b.png": entry("b.jpg", 0.5, -30.0, (0, 0, 40, 30), 2),
    "b.face2.png": entry("b.jpg", 0.7, 0.0, (-5, 0, 25, 20), 2),
}


def faces(entries):
    return report.Faces({"file": name, **values} for name, values in entries.items())


def test_the_summary_counts_photos_and_spreads_sizes_rolls_and_scores():
    found = faces(ENTRIES).summary(3)
    assert (found["photos"], found["without_a_face"]) == (5, 3)
    assert found["faces_in_photo"] == {"1": 1, "2": 1}
    assert found["face_px"] == [20, 25, 30, 35, 40]
    assert found["roll_degrees"] == [-30, -15, 0, 5, 10]
    assert found["score"][0] == 0.5 and found["score"][-1] == 0.9


def test_a_folder_without_faces_has_a_summary_too():
    assert faces({}).summary(2) == {"photos": 2, "without_a_face": 2, "faces_in_photo": {}}


def test_the_last_line_of_a_file_counts_and_broken_lines_do_not():
    rows = [
        {"file": "a.png", **entry("a.jpg", 0.1)},
        {"file": "b.png", **entry("b.jpg", 0.8)},
        {"file": "c.png", **entry("c.jpg", float("nan"))},
        {"file": "b.png", **entry("b.jpg", 0.9), "box": None},
        {"file": "a.png", **entry("a.jpg", 0.6)},
        {"file": "d.png", "source": "d.jpg"},
    ]
    found = report.Faces(rows)
    assert found.least_sure(5) == [4] and found.summary(0)["photos"] == 1
    assert found.summary(0)["score"] == [0.6] * 5


def test_columns_say_what_rows_say():
    rng = random.Random(0)
    rows = []
    for number in range(500):
        box = (0, 0, rng.randint(8, 90), rng.randint(8, 90))
        made = entry(f"{number % 300}.jpg", round(rng.random(), 2), rng.uniform(-90, 90), box, 1 + number % 2)
        rows.append({"file": f"{rng.randint(0, 400)}.png", **made})
    found = report.Faces(rows)
    last = {row["file"]: place for place, row in enumerate(rows)}
    kept = [rows[place] for place in sorted(last.values())]
    order = sorted(last.values(), key=lambda place: (rows[place]["score"], -abs(rows[place]["roll"]), place))
    assert found.least_sure(100) == order[:100]
    counts = Counter(str(count) for count in {row["source"]: row["faces_in_photo"] for row in kept}.values())
    figures = found.summary(7)
    assert figures["faces_in_photo"] == dict(counts) and figures["photos"] == 7 + len({r["source"] for r in kept})
    assert figures["face_px"][2] == statistics.median(max(row["box"][2:]) for row in kept)


def test_the_page_shows_the_least_sure_first_and_escapes_names(tmp_path):
    names = {"ä <x> #1.png": entry("ä <x> #1.jpg", 0.2), **ENTRIES}
    rows = [json.dumps({"file": name, **values}) for name, values in names.items()]
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "failed.jsonl").write_text(
        json.dumps({"path": "<b>.jpg", "stage": "detect", "reason": "no face"}) + "\n"
    )
    report.write_page(tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    order = [page.index(text) for text in ("%C3%A4%20%3Cx%3E%20%231.png", '"b.png"', '"b.face2.png"', '"a.png"')]
    assert order == sorted(order)
    assert "&lt;b&gt;.jpg: no face" in page and "<x>" not in page


def test_align_leaves_page_and_figures(facekit, tmp_path):
    from PIL import Image
    from skimage.data import astronaut

    (tmp_path / "in").mkdir()
    Image.fromarray(astronaut()).save(tmp_path / "in/one.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "in/none.png")
    done = facekit("align", tmp_path / "in", tmp_path / "out", "--detector", "cascade")
    assert done.code == 4
    figures = yaml.safe_load((tmp_path / "out/card.yaml").read_text())["made"]["faces"]
    assert (figures["photos"], figures["without_a_face"]) == (2, 1)
    page = (tmp_path / "out/index.html").read_text()
    assert 'src="one.png"' in page and "none.png: no face found" in page
