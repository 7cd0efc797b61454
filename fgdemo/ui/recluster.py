"""The Re-cluster tab: divide classes into subclasses anew, see what changed, keep it or step back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import gradio as gr

from fgdemo.errors import UserError
from fgdemo.recluster import METHODS
from fgdemo.terms import terms
from fgdemo.ui import recluster_report as report
from fgdemo.ui.chart import STATIC
from fgdemo.ui.exploration import Explorer, View, class_sizes
from fgdemo.ui.image_input import Argument, Choice, integer
from fgdemo.ui.pictures import notice
from fgdemo.ui.recluster_inputs import Classes, Download, Range, class_ids, one_of
from fgdemo.ui.running import Running, Stopped
from fgdemo.ui.scatter import STALE, Scatter, pending, read_point, read_result
from fgdemo.ui.session import MODEL_WORK, PRIVATE, App, reported
from fgdemo.ui.why_k import WhyK, why

STEPS_KEPT = 10
MAX_SEED = 2**31 - 1
_METHODS = [(name, key) for key, name in report.METHOD_NAMES.items()]
_PROJECTIONS = [(name, key) for key, name in report.PROJECTION_NAMES.items()]


def build(app: App, picker: gr.Dropdown, fetching: gr.HTML) -> None:
    """Lay the tab out and connect it."""
    explorer = Explorer(app)
    running = Running()

    def recall(result: str) -> View:
        try:
            view = app.recall(result)
        except UserError as error:
            raise UserError(STALE) from error
        if not isinstance(view, View):
            raise UserError(STALE)
        return view

    def describe(point: Any) -> dict[str, Any] | None:
        try:
            view = recall(read_result(point))
            return report.point_card(view, read_point(point, len(view.rows)))
        except UserError:
            return None

    style = (STATIC / "recluster.css").read_text(encoding="utf-8")
    history = gr.State([])
    with gr.Row(equal_height=False, elem_classes="fg-columns rc-columns"):
        with gr.Column(scale=3, min_width=260, elem_classes="rc-controls"):
            classes = Classes(
                label="Classes", info="All of them when none is chosen", multiselect=True, elem_id="rc-classes"
            )
            method = gr.Dropdown(_METHODS, value="kmeans", label="Method", filterable=False, elem_id="rc-method")
            automatic = gr.Checkbox(True, label="Choose K from the data", elem_id="rc-automatic")
            k = Range(1, 12, 3, step=1, label="K of each class", interactive=False, elem_id="rc-k")
            with gr.Accordion("More options", open=False, elem_classes="rc-more-options"):
                pca = Range(
                    0,
                    64,
                    0,
                    step=1,
                    label="Principal components",
                    info="0 clusters in the full space",
                    elem_id="rc-pca",
                )
                least = gr.Number(
                    1,
                    label="Smallest subclass",
                    info="Pictures that each gets, for k-means",
                    precision=0,
                    minimum=1,
                    elem_id="rc-least",
                )
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="rc-seed")
            run = gr.Button("Re-cluster", variant="primary", elem_id="rc-run")
            stop = gr.Button("Stop", variant="stop", visible=False, elem_id="rc-stop")
            undo = gr.Button("Undo", interactive=False, elem_id="rc-undo")
            save = gr.Button("Save as a new version", interactive=False, elem_id="rc-save")
            with gr.Row(elem_classes="rc-buttons"):
                as_csv = gr.Button("Download CSV", size="sm", min_width=100, elem_id="rc-csv")
                as_json = gr.Button("Download JSON", size="sm", min_width=100, elem_id="rc-json")
        with gr.Column(scale=9, min_width=320):
            with gr.Row(elem_classes="rc-bar", equal_height=True):
                caption = gr.HTML(
                    "", html_template=f"<style>{style}</style>${{value}}", apply_default_css=False, elem_id="rc-caption"
                )
                projection = gr.Radio(
                    _PROJECTIONS,
                    value="pca",
                    label="Projection",
                    show_label=False,
                    container=False,
                    elem_id="rc-projection",
                )
            with gr.Row(equal_height=False, elem_classes="rc-map"):
                with gr.Column(scale=7, min_width=320):
                    scatter = Scatter(describe=describe, elem_id="rc-scatter")
                with gr.Column(scale=3, min_width=240):
                    point = gr.HTML(report.POINT_HINT, apply_default_css=False, elem_id="rc-point")
            figures = gr.HTML(report.FIGURES_HINT, apply_default_css=False, elem_id="rc-figures")
            reasons = WhyK(elem_id="rc-why")
            rows = gr.HTML("", apply_default_css=False, elem_id="rc-prototypes")
            file = Download()

    shown = [scatter, caption, point, figures, rows, undo, save, history, reasons]

    def display(view: View, steps: Sequence[str], *, replacing: bool = False) -> list[Any]:
        identity = app.keep(view)
        steps = [*(steps[:-1] if replacing else steps), identity][-STEPS_KEPT:]
        return [
            view.drawing(identity),
            report.caption(view),
            report.POINT_HINT,
            report.figures(view),
            report.prototypes(view, notice(app, view.checkpoint)),
            gr.update(interactive=len(steps) > 1),
            gr.update(interactive=view.gallery is not app.classifier(view.checkpoint).gallery),
            steps,
            why(view.gallery, view.class_ids, view.class_names, view.words),
        ]

    def current(name: str, steps: Sequence[str]) -> View | None:
        """The view that these steps end with, where it is one of this checkpoint and still held."""
        try:
            view = recall(steps[-1]) if steps else None
        except UserError:
            return None
        return view if view is not None and view.checkpoint == name else None

    def last(steps: Sequence[str]) -> View:
        if not steps:
            raise UserError("Nothing is drawn yet: press Re-cluster first.")
        return recall(steps[-1])

    @reported
    def change_checkpoint(name: str | None, steps: list[str]) -> list[Any]:
        name = app.name(name)
        classifier = app.classifier(name)
        sizes = class_sizes(classifier.gallery)
        choices = [(classifier.classes[class_id], class_id) for class_id in sizes]
        # Without labels all pictures are divided together.
        offered = {"choices": choices, "visible": terms(classifier.config).labelled}
        most = min(classifier.gallery.dim, sum(sizes.values()))
        view = current(name, steps)
        if view is not None:
            # The picker says the same name more than once while a page loads, or has come back to it: what was done
            # on this checkpoint stays, and the scatter waits for it again.
            drawing, *others = display(view, steps, replacing=True)
            return [{**drawing, **pending(name)}, *others, gr.update(**offered), gr.update(maximum=most)]
        hints = [pending(name), "", report.POINT_HINT, report.FIGURES_HINT, ""]
        return [
            *hints,
            gr.update(interactive=False),
            gr.update(interactive=False),
            [],
            None,
            gr.update(**offered, value=[]),
            gr.update(maximum=most, value=0),
        ]

    @reported
    def limits(name: str | None, chosen: Any, how: str, free: bool) -> list[Any]:
        classifier = app.classifier(name)
        sizes = class_sizes(classifier.gallery)
        among = class_ids(chosen, classifier.classes)
        smallest = min((size for class_id, size in sizes.items() if class_id in among or not among), default=1)
        finds_k = how == "hdbscan"
        label = "K of each class" if terms(classifier.config).labelled else "Number of clusters"
        return [
            gr.update(interactive=not finds_k, info="HDBSCAN finds the number itself" if finds_k else None),
            gr.update(maximum=max(2, smallest), interactive=not (free or finds_k), label=label),
        ]

    @reported
    def start(name: str | None, plane: str, steps: list[str], event: gr.EventData) -> list[Any]:
        if event._data != {"name": name}:
            # the picker has moved on, and the scatter will ask for that checkpoint
            return [gr.skip()] * len(shown)
        view = current(name, steps)
        if view is not None:
            # asked for twice, and a step was taken in between
            return display(view, steps, replacing=True)
        return display(explorer.start(name, plane), [])

    @reported
    def again(
        name: str | None,
        chosen: Any,
        how: str,
        free: bool,
        number: Any,
        dims: Any,
        start_seed: Any,
        smallest: Any,
        plane: str,
        steps: list[str],
        bar: gr.Progress = gr.Progress(),  # noqa: B008
        request: gr.Request | None = None,
    ) -> list[Any]:
        name = app.name(name)
        try:
            before = recall(steps[-1]) if steps else None
        except UserError:
            gr.Warning("The earlier steps expired, so this one starts from the checkpoint's own subclasses.")
            before = None
        if before is None or before.checkpoint != name:
            before, steps = explorer.start(name, plane), []
            steps = [app.keep(before)]
        try:
            with running.work(_session(request), lambda done, total: bar((done, total), unit="classes")) as progress:
                view = explorer.recluster(
                    before,
                    class_ids(chosen, before.class_names),
                    method=how,
                    k=None if free else integer("K", number, 1, least=1),
                    pca_dim=integer("The number of principal components", dims, 0, least=0) or None,
                    seed=integer("The seed", start_seed, 0, least=0, most=MAX_SEED),
                    at_least=integer("The smallest subclass", smallest, 1, least=1),
                    projection=plane,
                    progress=progress,
                )
        except Stopped:
            gr.Info("Stopped. The division of before stays.")
            return [gr.skip()] * len(shown)
        return display(view, steps)

    def end(request: gr.Request) -> None:
        if not running.stop(_session(request)):
            gr.Info("Nothing runs that could be stopped; it may be waiting for somebody else's turn to end.")

    @reported
    def step_back(plane: str, steps: list[str]) -> list[Any]:
        if len(steps) < 2:
            raise UserError("There is nothing to undo.")
        view = recall(steps[-2])
        return display(view if view.asked == plane else explorer.project(view, plane), steps[:-1], replacing=True)

    @reported
    def reproject(plane: str, steps: list[str]) -> list[Any]:
        return display(explorer.project(last(steps), plane), steps, replacing=True)

    @reported
    def redraw(name: str | None, steps: list[str]) -> list[Any]:
        # Also for the cards of the scatter, which are held in the page.
        view = current(app.name(name), steps)
        return display(view, steps, replacing=True) if view is not None else [gr.skip()] * len(shown)

    @reported
    def show_point(event: gr.EventData) -> str:
        view = recall(read_result(event._data))
        return report.point_panel(view, read_point(event._data, len(view.rows)), notice(app, view.checkpoint))

    @reported
    def keep(steps: list[str]) -> Any:
        view = last(steps)
        name = app.save(view.checkpoint, view.gallery)
        gr.Info(f"Saved as {name}, which is now the chosen checkpoint.")
        return app.picker_update(name)

    def download(kind: str, text: Any) -> Any:
        def call(steps: list[str]) -> dict[str, str]:
            view = last(steps)
            name = f"{view.checkpoint.rpartition('/')[2]}-subclasses.{kind}"
            return {
                "name": name,
                "type": f"text/{kind};charset=utf-8",
                "text": text(view),
                "step": secrets.token_hex(8),
            }

        return reported(call)

    quiet = {"show_progress": "hidden", **PRIVATE}
    drawing = {"show_progress_on": scatter, **MODEL_WORK, **PRIVATE}
    gr.on(
        [classes.change, method.change, automatic.change, picker.change],
        limits,
        [picker, classes, method, automatic],
        [automatic, k],
        trigger_mode="always_last",
        **quiet,
    )
    picker.change(change_checkpoint, [picker, history], [*shown, classes, pca], **quiet)
    scatter.shown(start, [picker, projection, history], shown, trigger_mode="multiple", **drawing)
    inputs = [picker, classes, method, automatic, k, pca, seed, least, projection, history]
    run.click(lambda: _buttons(busy=True), None, [run, stop], queue=False, **quiet)
    finished = run.click(again, inputs, shown, **drawing)
    finished.then(lambda: _buttons(busy=False), None, [run, stop], queue=False, **quiet)
    stop.click(end, None, None, queue=False, **quiet)
    undo.click(step_back, [projection, history], shown, **drawing)
    projection.input(reproject, [projection, history], shown, trigger_mode="always_last", **drawing)
    fetching.arrived(redraw, [picker, history], shown, **quiet)
    scatter.point_click(show_point, None, point, trigger_mode="always_last", **quiet)
    save.click(keep, history, picker, **PRIVATE)
    as_csv.click(download("csv", report.as_csv), history, file, **quiet)
    as_json.click(download("json", report.as_json), history, file, **quiet)
    _endpoint(app, explorer)


def _buttons(*, busy: bool) -> list[Any]:
    """Re-cluster, or Stop in its place."""
    return [gr.update(visible=not busy), gr.update(visible=busy)]


def _session(request: gr.Request | None) -> str:
    """Whose page asks; empty outside a browser."""
    return (request.session_hash if request is not None else None) or ""


def _endpoint(app: App, explorer: Explorer) -> None:
    @reported
    def recluster(
        checkpoint: str | None = None,
        classes: Any = None,
        method: str | None = None,
        k: Any = None,
        pca: Any = None,
        seed: Any = None,
        projection: str | None = None,
        at_least: Any = None,
    ) -> dict[str, Any]:
        """Divide classes of a checkpoint's gallery into subclasses anew; the checkpoint itself stays as it is.

        Args:
            checkpoint: a name of the model picker; the first one when not given.
            classes: list of class names or ids; all when empty or not given.
            method: kmeans (when not given), spherical, gmm, agglomerative or hdbscan.
            k: subclasses of each class; 0 or nothing chooses it from the data.
            pca: cluster in so many principal components; 0 or nothing in the full space.
            seed: 0 when not given.
            projection: pca (when not given), tsne or umap.
            at_least: pictures that each subclass gets, for the k-means methods; 1 when not given.

        Returns:
            settings; for each class the figures before and after, agreement, and subclasses with ids and sizes; for
            each training picture of the classes its key, subclass id and place in the projection.
        """
        start = explorer.start(app.name(checkpoint))
        plane = one_of("projection", projection, report.PROJECTION_NAMES, "pca")
        view = explorer.recluster(
            start,
            class_ids(classes, start.class_names),
            method=one_of("method", method, METHODS, "kmeans"),
            k=integer("k", k, 0, least=0) or None,
            pca_dim=integer("pca", pca, 0, least=0) or None,
            seed=integer("seed", seed, 0, least=0, most=MAX_SEED),
            at_least=integer("at_least", at_least, 1, least=1),
            projection=plane,
        )
        return report.summary(view)

    gr.Button(visible=False).click(
        recluster,
        [
            Choice(visible=False, label="checkpoint"),
            Argument("classes"),
            Choice(visible=False, label="method"),
            Argument("k"),
            Argument("pca"),
            Argument("seed"),
            Choice(visible=False, label="projection"),
            Argument("at_least"),
        ],
        gr.JSON(visible=False, label="result"),
        api_name="recluster",
        **MODEL_WORK,
    )
