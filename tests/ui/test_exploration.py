"""Views of a gallery, and what the Re-cluster tab says about them, on two small checkpoints."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from support.digits_checkpoint import write_digits
from tiny_checkpoint import write_tiny

from fgdemo.clustering.quality import ari
from fgdemo.errors import UserError
from fgdemo.ui import recluster_report as report
from fgdemo.ui.exploration import PROJECTIONS_KEPT, Explorer, View, class_sizes
from fgdemo.ui.recluster_inputs import class_ids
from fgdemo.ui.session import App

SETTINGS = {"method": "kmeans", "k": 3, "pca_dim": None, "seed": 0, "projection": "pca"}
HOSTILE = '=1+1"><script>alert(1)</script>${1}{{x}}'


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_digits(folder / "digits")
    write_tiny(folder / "tiny")
    return App([folder], saved=tmp_path_factory.mktemp("saved"), device="cpu")


@pytest.fixture
def explorer(app: App) -> Explorer:
    return Explorer(app)


@pytest.fixture
def start(explorer: Explorer) -> View:
    return explorer.start("digits")


def decoded_codes(view: View) -> np.ndarray:
    import base64

    return np.frombuffer(base64.b64decode(view.drawing("id")["code"]), "<u4")


class Text(HTMLParser):
    """Tags and text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_start_shows_the_checkpoints_own_subclasses(start: View) -> None:
    gallery = start.gallery
    np.testing.assert_array_equal(start.rows, gallery.train_rows)
    codes = decoded_codes(start)
    ids = np.array([group.id for group in start.groups])
    np.testing.assert_array_equal(ids[codes], gallery.subclass_id[start.rows])
    assert [group.size for group in start.groups] == np.bincount(codes).tolist()
    assert start.outcome is None
    assert start.projection.points.shape == (len(start.rows), 2)


def test_classes_without_subclasses_are_drawn_too(explorer: Explorer) -> None:
    view = explorer.start("tiny")
    assert class_sizes(view.gallery) == {0: 3, 1: 3, 2: 3}
    assert [(g.id, g.class_name, g.size) for g in view.groups] == [
        (3, "apple", 2),
        (8, "apple", 1),
        (5, "moss", 3),
        (-3, "sky", 3),
    ]
    point = int(np.flatnonzero(view.gallery.class_id[view.rows] == 2)[0])
    assert "No subclass" in report.point_panel(view, point)
    assert "sky" not in Text(report.prototypes(view)).text
    again = explorer.recluster(view, [2], **{**SETTINGS, "k": 2})
    assert again.outcome.before == {}
    assert report.summary(again)["classes"][0]["before"] is None
    assert "\N{EN DASH}" in report.figures(again)


def test_reclustering_only_touches_the_chosen_classes(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [1, 3], **SETTINGS)
    assert view.class_ids == (1, 3)
    assert set(view.gallery.class_id[view.rows].tolist()) == {1, 3}
    others = ~np.isin(view.gallery.class_id, [1, 3])
    np.testing.assert_array_equal(view.gallery.subclass_id[others], start.gallery.subclass_id[others])
    assert [view.outcome.after[c].k for c in (1, 3)] == [3, 3]
    old, new = (v.gallery.subclass_id[view.rows][view.gallery.class_id[view.rows] == 1] for v in (start, view))
    assert view.outcome.agreement[1]["ari"] == pytest.approx(ari(old, new))


def test_a_kept_subclass_keeps_its_colour(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [], **SETTINGS)
    kept = set(start.styles) & set(view.styles)
    assert kept
    assert all(view.styles[identity] == start.styles[identity] for identity in kept)


def test_a_projection_is_computed_once(explorer: Explorer, start: View, monkeypatch: pytest.MonkeyPatch) -> None:
    import fgdemo.clustering

    calls = []
    real = fgdemo.clustering.project2d

    def counted(x: np.ndarray, method: str, seed: int) -> object:
        calls.append(method)
        return real(x, method, seed=seed)

    monkeypatch.setattr(fgdemo.clustering, "project2d", counted)
    first = explorer.recluster(start, [], **SETTINGS)
    second = explorer.recluster(first, [], **{**SETTINGS, "k": 2})
    assert calls == []
    assert first.frame == second.frame == start.frame
    other = explorer.recluster(start, [0], **SETTINGS)
    assert calls == ["pca"]
    assert other.frame != first.frame
    moved = explorer.project(second, "tsne")
    explorer.project(first, "tsne")
    assert calls == ["pca", "tsne"]
    assert moved.gallery is second.gallery
    for seed in range(PROJECTIONS_KEPT + 3):
        explorer.recluster(start, [0], **{**SETTINGS, "seed": seed})
    assert len(explorer._projections) == PROJECTIONS_KEPT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 0}, "K is 0, but class"),
        ({"k": 10**9}, "choose K from 1 to"),
        ({"pca_dim": 65}, "choose 1 to 64"),
        ({"pca_dim": -1}, "choose 1 to 64"),
        ({"method": "magic"}, "Unknown method"),
        ({"projection": "map"}, "projection"),
    ],
)
def test_bad_arguments_are_one_sentence(explorer: Explorer, start: View, change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        explorer.recluster(start, [], **{**SETTINGS, **change})


def test_k_may_be_as_large_as_the_smallest_class(explorer: Explorer, start: View) -> None:
    sizes = class_sizes(start.gallery)
    smallest = min(sizes, key=sizes.__getitem__)
    view = explorer.recluster(start, [smallest], **{**SETTINGS, "k": sizes[smallest]})
    assert view.outcome.after[smallest].k == sizes[smallest]
    with pytest.raises(UserError, match=f"class {smallest} has {sizes[smallest]} training pictures"):
        explorer.recluster(start, [], **{**SETTINGS, "k": sizes[smallest] + 1})


def test_hdbscan_ignores_k_and_reports_noise(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [], **{**SETTINGS, "method": "hdbscan", "k": 10**9})
    assert view.settings["k"] is None
    assert (f"{view.outcome.noise} picture" in report.caption(view)) == (view.outcome.noise > 0)


def test_sampling_is_said(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [0, 1], **{**SETTINGS, "method": "agglomerative"})
    assert "sample" not in report.caption(view)
    sampled = replace(view, outcome=replace(view.outcome, sampled={0: 5000}))
    assert "Agglomerative ran on a seeded sample of 5,000 pictures of 0;" in report.caption(sampled)
    placed = replace(view, projection=replace(view.projection, sampled=5000), asked="tsne")
    assert "Too few pictures for t-SNE: PCA is drawn." in report.caption(placed)
    assert "a seeded sample of 5,000 pictures" in report.caption(placed)


def test_the_table_holds_the_figures_and_their_means(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [], **SETTINGS)
    text = Text(report.figures(view)).text
    after = view.outcome.after
    for quality in after.values():
        assert f"{quality.inertia_ratio:.2f}" in text
    assert f"{np.mean([q.inertia_ratio for q in after.values()]):.2f}" in text
    assert "2.00 → 3.00" in text
    assert "Mean of 4 classes" in text
    one = explorer.recluster(start, [2], **SETTINGS)
    assert "Mean" not in Text(report.figures(one)).text


def test_colours_agree_between_scatter_table_and_rows(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [2], **SETTINGS)
    marks = [group["mark"] for group in view.drawing("id")["groups"]]
    for html in (report.figures(view), report.prototypes(view)):
        assert [html.count(mark) for mark in marks] == [1, 1, 1]


def test_a_pressed_point_is_that_picture(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [2], **SETTINGS)
    for point in (0, len(view.rows) - 1):
        key = view.gallery.keys[view.rows[point]]
        card, panel = report.point_card(view, point), report.point_panel(view, point)
        assert card["key"] == key
        assert card["picture"].startswith("data:image/webp;base64,")
        assert card["picture"] in panel
        assert key in Text(panel).text
        assert Text(panel).tags.count("img") == 1 + report.PROTOTYPES


def test_prototype_rows_are_bounded(start: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "ROWS_SHOWN", 3)
    text = Text(report.prototypes(start))
    assert text.tags.count("img") == 3 * report.PROTOTYPES
    assert "The first 3 of 8 subclasses are shown" in text.text


def hostile(view: View) -> View:
    document = json.loads(json.dumps(view.gallery.subclasses))
    for entry in document["classes"]:
        for member in entry["subclasses"]:
            member["name"] = HOSTILE
    gallery = replace(
        view.gallery.with_subclasses(view.gallery.subclass_id, document), keys=[HOSTILE] * len(view.gallery)
    )
    return replace(view, gallery=gallery, class_names=(HOSTILE,) * len(view.class_names), checkpoint=HOSTILE)


def test_every_text_is_escaped(explorer: Explorer, start: View) -> None:
    view = hostile(explorer.recluster(start, [], **SETTINGS))
    for html in (
        report.caption(view),
        report.figures(view),
        report.prototypes(view),
        report.point_panel(view, 0),
    ):
        assert "script" not in Text(html).tags
        assert "${" not in html
        assert "{{" not in html
    assert HOSTILE in Text(report.point_panel(view, 0)).text


def test_csv_parses_and_no_cell_is_a_formula(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [1], **SETTINGS)
    rows = list(csv.DictReader(io.StringIO(report.as_csv(view), newline="")))
    gallery = view.gallery
    assert len(rows) == len(gallery)
    assert [row["key"] for row in rows] == list(gallery.keys)
    assert [int(row["subclass_id"]) for row in rows] == gallery.subclass_id.tolist()
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    for start_sign in "=+-@\t\r":
        named = replace(view, class_names=(f"{start_sign}cmd",) * 4)
        cells = next(csv.reader(io.StringIO(report.as_csv(named).split("\r\n", 1)[1], newline="")))
        assert cells[2] == f"'{start_sign}cmd"


def test_json_parses_to_the_same_assignments(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [1], **SETTINGS)
    document = json.loads(report.as_json(view))
    assert [item["subclass_id"] for item in document["assignments"]] == view.gallery.subclass_id.tolist()
    assert document["settings"] == {"classes": ["1"], "method": "kmeans", "k": 3, "pca": None, "seed": 0, "at_least": 1}
    (entry,) = document["classes"]
    assert entry["after"]["k"] == 3
    assert sum(member["size"] for member in entry["subclasses"]) == class_sizes(view.gallery)[1]


def test_the_summary_is_plain_json_of_the_view(explorer: Explorer, start: View) -> None:
    view = explorer.recluster(start, [0, 2], **SETTINGS)
    found = json.loads(json.dumps(report.summary(view), allow_nan=False))
    pictures = found["pictures"]
    assert {len(column) for column in pictures.values()} == {len(view.rows)}
    assert pictures["subclass_id"] == view.gallery.subclass_id[view.rows].tolist()
    assert [entry["class_id"] for entry in found["classes"]] == [0, 2]


def test_saving_leaves_the_checkpoint_alone(app: App, explorer: Explorer, start: View) -> None:
    source = app.checkpoints()["digits"]
    bytes_before = {file.name: file.read_bytes() for file in source.iterdir()}
    view = explorer.recluster(start, [], **SETTINGS)
    name = app.save("digits", view.gallery)
    assert name == "digits-v2"
    assert {file.name: file.read_bytes() for file in source.iterdir()} == bytes_before
    again = explorer.start(name)
    np.testing.assert_array_equal(again.gallery.subclass_id, view.gallery.subclass_id)
    assert app.checkpoints()[name].parent == app.saved


@pytest.mark.parametrize(
    "chosen", ["0", {"0": 1}, [True], [-1], [4], [1.0], ["9"], [None], [[0]], [0] * 5, ["0"] * 1_000_000]
)
def test_class_ids_are_checked(chosen: object) -> None:
    with pytest.raises(UserError, match="class"):
        class_ids(chosen, ("0", "1", "2", "3"))


def test_class_ids_are_names_or_numbers() -> None:
    assert class_ids(["rose", 2], ("daisy", "rose", "tulip")) == [1, 2]
    assert class_ids(None, ("daisy",)) == class_ids([], ("daisy",)) == []
