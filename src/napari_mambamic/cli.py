"""The command line: ``mambamic demo | classify | train | robustness | compare | weights ...``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mambamic.atomic import check_folder_of, write_json
from napari_mambamic.errors import ImageError, MambamicError, WeightsError
from napari_mambamic.progress import Progress, drained

if TYPE_CHECKING:
    from napari_mambamic.batch import BatchProgress, ImageOutcome
    from napari_mambamic.training.checkpoint import Checkpoint
    from napari_mambamic.training.samples import Samples

_WEIGHTS_HELP = "a name that 'mambamic weights' lists, or a .safetensors file"
_NETWORKS_HELP = "mambamic-t, -s or -b, or medmamba-t, -s or -b"
_DEVICE_HELP = "auto (default), cuda, mps or cpu"
_TILE_SIZE_HELP = "side of a tile in the image; by default as the weights were trained"
_PIXEL_SIZE_HELP = "micrometres per pixel, where the file does not say it or says it wrong"
_PIXELS_HELP = "take the tile size of the weights in px, whatever the pixel size is"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; an error is one sentence on stderr and exit code 1.

    The exit code is 2 when some images could be classified and others could not.
    """
    parser = _parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        return 1
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except MambamicError as error:
        print(f"mambamic: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mambamic",
        description="Classify the tiles and cells of microscopy images.",
        epilog="'mambamic COMMAND --help' has the options of a command.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, does, add_options in (
        ("demo", "classify a bundled image in napari", _demo_options),
        ("classify", "classify the tiles or objects of image files", _classify_options),
        ("train", "train on samples, and save the weights", _train_options),
        ("robustness", "tell how many labels change when the picture does", _robustness_options),
        ("compare", "compare two results of the same tiles", _compare_options),
        ("weights", "list, download, add, remove, import or export weights", _weights_options),
        ("doctor", "tell what this machine would compute on, and why", _doctor_options),
        ("bench", "measure the speed against the published layout", _bench_options),
    ):
        add_options(commands.add_parser(name, help=does))
    return parser


def _demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "--screenshot", type=Path, metavar="FILE", help="save a PNG of the window and quit"
    )
    demo.set_defaults(run=_demo)


def _classify_options(classify: argparse.ArgumentParser) -> None:
    classify.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="files, folders, or patterns such as 'slides/*.svs'",
    )
    classify.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for the results; by default the one you are in",
    )
    classify.add_argument(
        "--format",
        nargs="+",
        default=["csv"],
        metavar="FORMAT",
        help="one or several of csv (default), parquet, geojson, geojson.gz, ome.zarr, png",
    )
    classify.add_argument("--weights", default="default", help=_WEIGHTS_HELP)
    classify.add_argument("--device", default="auto", help=_DEVICE_HELP)
    classify.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    classify.add_argument(
        "--dask", metavar="ADDRESS", help="of a cluster's scheduler, or its scheduler file"
    )
    classify.add_argument("--tile-size", type=_at_least(1), metavar="PX", help=_TILE_SIZE_HELP)
    classify.add_argument(
        "--overlap",
        type=_at_least(0),
        metavar="PX",
        help="what neighbouring tiles share; 0 by default",
    )
    classify.add_argument(
        "--pixel-size", type=float, metavar="UM", dest="pixel_size_um", help=_PIXEL_SIZE_HELP
    )
    classify.add_argument("--use-pixels", action="store_true", default=None, help=_PIXELS_HELP)
    classify.add_argument(
        "--channels",
        type=int,
        nargs="+",
        metavar="N",
        help="those that the weights want, in their order; the first is 0",
    )
    classify.add_argument(
        "--skip-background",
        action="store_true",
        default=None,
        help="leave out tiles that hold only glass or darkness",
    )
    classify.add_argument(
        "--objects",
        metavar="PATTERN",
        help="classify the objects of a label image beside each image, such as "
        "'{stem}_labels.tif', or a folder with files of the same names",
    )
    classify.add_argument(
        "--object-scale",
        type=float,
        metavar="F",
        help="side of a tile / longer side of its object; by default all tiles have one size",
    )
    classify.add_argument(
        "--points",
        metavar="PATTERN",
        help="classify the points of a .csv (y, x; of a stack also z, t) or .geojson file beside "
        "each image",
    )
    classify.add_argument(
        "--within",
        metavar="PATTERN",
        help="only within the polygons of a .geojson file beside each image, as of QuPath",
    )
    classify.add_argument(
        "--batch-size",
        type=_at_least(1),
        metavar="N",
        help="tiles at once; does not change the result",
    )
    classify.add_argument(
        "--unsure-below",
        type=float,
        metavar="P",
        help="such as 0.8: tiles whose class is less probable are marked as unsure",
    )
    classify.add_argument(
        "--leave-out-unsure",
        dest="count_unsure",
        action="store_false",
        default=None,
        help="do not count them in their classes",
    )
    classify.add_argument(
        "--coverage",
        type=float,
        metavar="C",
        help="such as 0.95: how many classes a tile needs so that the right one is among them",
    )
    classify.add_argument(
        "--series",
        type=_at_least(0),
        metavar="N",
        help="of a file with several images, which; 0 is the first",
    )
    classify.add_argument(
        "--z",
        type=_plane,
        metavar="N",
        help="plane of a stack, or 'all', each by itself; by default the middle one",
    )
    classify.add_argument(
        "--t", type=_plane, metavar="N", help="time point, or 'all'; by default the first"
    )
    classify.set_defaults(run=_classify)


def _train_options(train: argparse.ArgumentParser) -> None:
    train.add_argument(
        "samples",
        type=Path,
        metavar="SAMPLES",
        help="class folders, a .csv, .npz or .mambamic.json file, or a folder with VOC .xml boxes",
    )
    train.add_argument("--out", type=Path, required=True, metavar="FILE", help="*.safetensors")
    train.add_argument(
        "--start",
        default="default",
        help=f"{_WEIGHTS_HELP}, or 'scratch'; by default blood-cells-t",
    )
    train.add_argument(
        "--mode",
        choices=["head", "last stage", "all"],
        default="all",
        help="what may change: head takes seconds, last stage minutes; all by default",
    )
    train.add_argument(
        "--network",
        default="mambamic-t",
        help=f"with --start scratch: {_NETWORKS_HELP}; mambamic-t by default",
    )
    train.add_argument(
        "--recipe",
        choices=["default", "published"],
        default="default",
        help="published: that of the papers",
    )
    train.add_argument(
        "--epochs", type=_at_least(1), metavar="N", help="how often each sample is seen"
    )
    train.add_argument("--batch-size", type=_at_least(1), metavar="N", help="samples at once")
    train.add_argument(
        "--patch-size", type=_at_least(1), metavar="PX", help="side that samples are resampled to"
    )
    train.add_argument(
        "--tile-size",
        type=_at_least(1),
        metavar="PX",
        help="side of the tiles around points and boxes",
    )
    train.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read"
    )
    train.add_argument(
        "--drop-copies", action="store_true", help="leave out samples with the same pixels"
    )
    train.add_argument(
        "--test-share",
        type=float,
        metavar="SHARE",
        help="such as 0.2: kept out of everything, for a figure to publish",
    )
    train.add_argument(
        "--robustness",
        action="store_true",
        help="add to the report how many of 200 validation samples change their class when the "
        "picture does",
    )
    train.add_argument("--seed", type=_at_least(0), metavar="N", help="another one, another split")
    train.add_argument("--device", default="auto", help=_DEVICE_HELP)
    train.add_argument(
        "--folder", type=Path, metavar="DIR", help="keep the state there, and go on from it"
    )
    train.set_defaults(run=_train)


def _robustness_options(robustness: argparse.ArgumentParser) -> None:
    robustness.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="samples with known classes, as for train; or an image, which is cut into tiles",
    )
    robustness.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="*.html; figures go to *.json"
    )
    robustness.add_argument("--weights", default="default", help=_WEIGHTS_HELP)
    robustness.add_argument("--device", default="auto", help=_DEVICE_HELP)
    robustness.add_argument("--tile-size", type=_at_least(1), metavar="PX", help=_TILE_SIZE_HELP)
    robustness.add_argument(
        "--pixel-size", type=float, metavar="UM", dest="pixel_size_um", help=_PIXEL_SIZE_HELP
    )
    robustness.add_argument("--use-pixels", action="store_true", help=_PIXELS_HELP)
    robustness.add_argument(
        "--most",
        type=int,
        default=200,
        metavar="N",
        help="how many samples or tiles are drawn; 200 by default",
    )
    robustness.add_argument(
        "--seed", type=_at_least(0), default=0, metavar="N", help="another one draws others"
    )
    robustness.set_defaults(run=_robustness)


def _compare_options(compare: argparse.ArgumentParser) -> None:
    compare.add_argument(
        "first", type=Path, metavar="A", help="a result: *.csv, *.parquet or *.geojson"
    )
    compare.add_argument("second", type=Path, metavar="B", help="another one of the same tiles")
    compare.add_argument("--out", type=Path, metavar="FILE", help="*.csv, a row per tile")
    compare.set_defaults(run=_compare)


def _weights_options(weights: argparse.ArgumentParser) -> None:
    weights.description = "Without an action: list the weights that are registered."
    weights.set_defaults(run=_weights)
    actions = weights.add_subparsers(metavar="[ACTION]")
    imported = actions.add_parser("import", help="register a published .pth state dict")
    _import_options(imported)
    fetched = actions.add_parser("fetch", help="download registered weights")
    fetched.add_argument(
        "names", nargs="+", metavar="NAME", help="as 'mambamic weights' lists them"
    )
    fetched.set_defaults(run=_fetch_weights)
    added = actions.add_parser("add", help="register .safetensors files with their manifests")
    added.add_argument("path", type=Path, metavar="PATH", help="a file, or a folder of such files")
    added.set_defaults(run=_add_weights)
    removed = actions.add_parser(
        "remove", help="remove weights that were added, trained or downloaded"
    )
    removed.add_argument(
        "names", nargs="+", metavar="NAME", help="as 'mambamic weights' lists them"
    )
    removed.set_defaults(run=_remove_weights)
    exported = actions.add_parser(
        "export-wsinfer", help="write weights as a model for QuPath's WSInfer extension"
    )
    exported.add_argument("name", metavar="NAME", help="a registered name or a file")
    exported.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="its name is the model's"
    )
    exported.add_argument(
        "--pixel-size", type=float, metavar="UM", help="of the training images, if not known"
    )
    exported.set_defaults(run=_export_wsinfer)


def _import_options(imported: argparse.ArgumentParser) -> None:
    imported.add_argument(
        "file", type=Path, metavar="FILE", help="*.pth, as the papers' code saves"
    )
    imported.add_argument("--network", required=True, help=_NETWORKS_HELP)
    imported.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="in the order of training"
    )
    imported.add_argument("--name", help="to register it by; by default the file's")
    imported.add_argument(
        "--patch-size",
        type=_at_least(1),
        default=224,
        metavar="PX",
        help="side of the images that the network was trained on; 224 by default",
    )
    imported.add_argument(
        "--tile-size",
        type=_at_least(1),
        metavar="PX",
        help="side of what is cut from an image; by default the patch size",
    )
    imported.add_argument(
        "--mean",
        type=float,
        nargs="+",
        default=[0.5, 0.5, 0.5],
        help="of each channel, of values from 0 to 1, as in training; 0.5 by default",
    )
    imported.add_argument(
        "--std",
        type=float,
        nargs="+",
        default=[0.5, 0.5, 0.5],
        help="standard deviation, likewise; 0.5 by default",
    )
    imported.add_argument(
        "--trained-on", default="", metavar="TEXT", help="what is known of the training data"
    )
    imported.add_argument("--licence", default="not stated", help="of the weights")
    imported.set_defaults(run=_import_weights)


def _doctor_options(doctor: argparse.ArgumentParser) -> None:
    doctor.set_defaults(run=_doctor)


def _bench_options(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--networks",
        nargs="+",
        default=["mambamic-t"],
        metavar="NAME",
        help=f"{_NETWORKS_HELP}; mambamic-t by default",
    )
    bench.add_argument(
        "--patch-size",
        type=_at_least(1),
        default=224,
        metavar="PX",
        help="side of a patch; 224 by default",
    )
    bench.add_argument(
        "--batch-size", type=_at_least(1), metavar="N", help="8 on a CPU, 256 on a GPU"
    )
    bench.add_argument(
        "--parts",
        nargs="+",
        default=["forward", "batches", "training", "memory"],
        choices=["forward", "batches", "training", "memory"],
        help="what to measure; all by default",
    )
    bench.add_argument(
        "--end-to-end",
        action="store_true",
        help="instead: classify an image from memory, zarr and TIFF, against the network alone",
    )
    bench.add_argument("--device", default="auto", help=_DEVICE_HELP)
    bench.add_argument("--json", type=Path, metavar="FILE", help="save the figures there")
    bench.set_defaults(run=_bench)


def _at_least(least: int) -> Callable[[str], int]:
    """For argparse: a whole number that is not less."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is given, and {least} is the least")
        return number

    return whole_number


def _plane(text: str) -> int | str:
    """The number of a plane, or "all"."""
    if text != "all" and not text.lstrip("-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'all'")
    return "all" if text == "all" else int(text)


def _demo(options: argparse.Namespace) -> None:
    if options.screenshot:
        check_folder_of(options.screenshot)
    try:
        from napari_mambamic._napari.demo import run_demo
    except ImportError as error:
        raise MambamicError(
            f"The demo needs napari with a Qt binding: {error}. Install them with "
            f"pip install 'napari-mambamic[all]'."
        ) from error
    print(_counts(run_demo(options.screenshot).counts))
    if options.screenshot:
        print(f"Saved {options.screenshot}")


def _classify(options: argparse.Namespace) -> int:
    from napari_mambamic.batch import OPTIONS, SUMMARY, classify_many, find_images

    if not options.out.absolute().parent.is_dir():
        raise ImageError(f"There is no folder {options.out.parent}. Create it or choose another.")
    images = find_images(options.images)
    try:
        options.out.mkdir(exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"The folder {options.out} cannot be made: {error.strerror}. Choose another."
        ) from error
    chosen = {name: getattr(options, name, None) for name in OPTIONS}
    summary = classify_many(
        images,
        weights=options.weights,
        out=options.out,
        formats=options.format,
        device=options.device,
        precision=options.precision,
        dask=options.dask,
        on_progress=_BatchLog().tell,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    if len(summary.images) > 1:
        print(f"{summary} -> {options.out / SUMMARY}")
    n_good = summary.count("done") + summary.count("skipped")
    return 1 if not n_good else 2 if summary.n_failed else 0


def _train(options: argparse.Namespace) -> None:
    from napari_mambamic.training.config import TrainConfig
    from napari_mambamic.training.datasets import samples_from_path
    from napari_mambamic.training.fine_tune import fine_tune
    from napari_mambamic.training.processes import is_first_process
    from napari_mambamic.training.progress import TrainProgress
    from napari_mambamic.training.report import write_report
    from napari_mambamic.training.samples import without_copies

    if not options.out.parent.is_dir():
        raise WeightsError(f"There is no folder {options.out.parent}. Create it first.")
    samples = samples_from_path(
        options.samples, tile_size=options.tile_size, skip_unreadable=options.skip_unreadable
    )
    if options.drop_copies:
        samples = without_copies(samples)
    if samples.note:
        print(samples.note)
    print(f"{len(samples):,} samples: {', '.join(f'{k} {n}' for k, n in samples.counts.items())}")
    names = ("mode", "network", "epochs", "batch_size", "patch_size", "test_share", "seed")
    given = {name: getattr(options, name) for name in (*names, "device")}
    chosen = {name: value for name, value in given.items() if value is not None}
    make = TrainConfig.published if options.recipe == "published" else TrainConfig

    def say(progress: TrainProgress) -> None:
        epoch = progress.history[-1]
        left = progress.seconds_left or 0.0
        print(
            f"epoch {epoch.number}: loss {epoch.loss:.3f}, validation accuracy "
            f"{epoch.accuracy:.1%}, balanced {epoch.balanced_accuracy:.1%}, {left:.0f} s left",
            flush=True,
        )

    checkpoint = fine_tune(
        samples,
        start=None if options.start == "scratch" else options.start,
        config=make(**chosen),
        folder=options.folder,
        on_epoch=say,
    )
    if not is_first_process():
        return
    path = checkpoint.save(options.out)
    sections = _robustness_section(checkpoint, samples, options) if options.robustness else {}
    page = path.with_suffix(".html")
    report = write_report(checkpoint.report, page, samples=samples, sections=sections)
    figures = checkpoint.report["validation"]
    print(f"validation: accuracy {figures['overall_accuracy']:.1%}, balanced ", end="")
    print(f"{figures['balanced_accuracy']:.1%} -> {path}, {report}")


def _robustness(options: argparse.Namespace) -> None:
    from napari_mambamic.classifier import load_classifier
    from napari_mambamic.explain.robustness import (
        RobustnessReport,
        iter_robustness,
        iter_robustness_of_tiles,
        sampled,
    )

    if options.most < 1:
        raise ImageError(f"The most patches are {options.most}. Choose at least 1.")
    check_folder_of(options.out)
    classifier = load_classifier(options.weights, device=options.device)
    steps: Generator[Progress, None, RobustnessReport]
    if _holds_samples(options.source):
        from napari_mambamic.training.datasets import samples_from_path

        samples = samples_from_path(options.source, tile_size=options.tile_size)
        chosen = sampled(len(samples), options.most, seed=options.seed)
        known = [
            classifier.class_names.index(name) if name in classifier.class_names else -1
            for name in samples.class_names
        ]
        unknown = [name for name in samples.class_names if name not in classifier.class_names]
        if unknown:
            print(f"The weights have no class {', '.join(unknown)}: no accuracy there.")
        labels = np.array(known)[samples.labels[chosen]]
        pixels = samples.pixels[chosen]
        steps = iter_robustness(pixels, classifier, labels=labels, seed=options.seed)
    else:
        from napari_mambamic.classify import plan
        from napari_mambamic.image_files import open_image

        image = open_image(options.source, pixel_size_um=options.pixel_size_um)
        tiles = plan(
            image,
            classifier.manifest.patch,
            tile_size=options.tile_size,
            use_pixels=options.use_pixels,
        )
        drawn = [tiles[int(i)] for i in sampled(len(tiles), options.most, seed=options.seed)]
        steps = iter_robustness_of_tiles(image, drawn, classifier, seed=options.seed)
    report = drained(steps, _print_progress)
    if "image" not in report.provenance:
        source = {"samples": str(options.source)}
        report = replace(report, provenance=report.provenance | source)
    page = report.to_html(options.out.with_suffix(".html"))
    figures = report.to_json(options.out.with_suffix(".json"))
    print(f"{'labels that stay, at':20}" + "".join(f"{n:7}" for n in range(1, 6)) + " of 5")
    for name, rows in report.by_perturbation.items():
        print(f"{name:20}" + "".join(f"{row.stability:7.1%}" for row in rows))
    print("\n".join([report.sentence, *report.notes, f"-> {page}, {figures}"]))


def _robustness_section(
    checkpoint: Checkpoint, samples: Samples, options: argparse.Namespace
) -> dict[str, str]:
    """How many labels of validation samples change when the pictures do, as HTML."""
    from napari_mambamic.explain.robustness import iter_robustness, sampled

    held = np.asarray(checkpoint.report["validation_indices"])
    held = held[sampled(len(held))]
    classifier = checkpoint.classifier(device=options.device)
    steps = iter_robustness(samples.pixels[held], classifier, labels=samples.labels[held])
    return {"Robustness (validation)": drained(steps, _print_progress).html}


def _holds_samples(source: Path) -> bool:
    """Whether a path leads to labelled samples: a folder that is no zarr, a table, arrays."""
    if source.suffix.lower() in (".npz", ".csv"):
        return True
    return source.is_dir() and not source.name.lower().endswith(".zarr")


def _compare(options: argparse.Namespace) -> None:
    from napari_mambamic.compare import compare_runs
    from napari_mambamic.exports import read_results

    comparison = compare_runs(read_results(options.first), read_results(options.second))
    print(comparison.table)
    print(comparison.sentence)
    if options.out:
        print(f"-> {comparison.to_csv(options.out)}")


def _weights(_: argparse.Namespace) -> None:
    from napari_mambamic.weights.store import is_here, list_weights, read_manifest

    for name in list_weights():
        manifest = read_manifest(name)
        where = "" if is_here(name) else ", to be downloaded"
        print(f"{name}: {manifest.title} ({manifest.network}, {manifest.licence}{where})")
        print(f"  classes: {', '.join(manifest.class_names)}")
        print(f"  trained on {manifest.training_data}")
        if manifest.score:
            print(f"  {manifest.score}")


def _import_weights(options: argparse.Namespace) -> None:
    from napari_mambamic.patches import PatchSpec
    from napari_mambamic.weights.published import register_published
    from napari_mambamic.weights.store import list_weights, own_path

    name = options.name or re.sub(r"[^\w-]+", "-", options.file.stem)
    if name in list_weights():
        raise WeightsError(f"There are weights {name!r} already. Choose another with --name.")
    grey = len(options.mean) == 1
    patch = PatchSpec(
        tile_size=options.tile_size or options.patch_size,
        patch_size=options.patch_size,
        channels=("grey",) if grey else ("red", "green", "blue"),
        mean=tuple(options.mean),
        std=tuple(options.std),
    )
    path = own_path(name)
    manifest = register_published(
        options.file,
        network=options.network,
        class_names=tuple(options.classes),
        out=path,
        patch=patch,
        training_data=options.trained_on,
        licence=options.licence,
    )
    print(f"Registered {manifest.name!r}: {manifest.network}, {len(manifest.class_names)} classes")


def _fetch_weights(options: argparse.Namespace) -> None:
    from napari_mambamic.weights.store import fetch_weights

    for name in options.names:
        print(fetch_weights(name, on_progress=_print_progress))


def _add_weights(options: argparse.Namespace) -> None:
    from napari_mambamic.weights.store import add_weights

    print(f"Registered {', '.join(add_weights(options.path))}")


def _remove_weights(options: argparse.Namespace) -> None:
    from napari_mambamic.weights.store import remove_weights

    for name in options.names:
        print(f"Removed {name!r}: {remove_weights(name) / 1e6:.1f} MB are free again")


def _export_wsinfer(options: argparse.Namespace) -> None:
    from napari_mambamic.exports.wsinfer import export_wsinfer

    folder = export_wsinfer(options.name, options.out, pixel_size_um=options.pixel_size)
    print(f"{options.name} -> {folder}")


def _doctor(_: argparse.Namespace) -> None:
    from napari_mambamic.doctor import examine

    for heading, finding in examine().items():
        print(f"{heading:15} {finding}")


def _bench(options: argparse.Namespace) -> None:
    if options.json:
        check_folder_of(options.json)
    if options.end_to_end:
        from napari_mambamic.bench.end_to_end import end_to_end_table, measure_end_to_end

        report = measure_end_to_end(device=options.device)
        print(end_to_end_table(report))
    else:
        from napari_mambamic.bench.networks import measure, table

        report = measure(
            networks=options.networks,
            patch_size=options.patch_size,
            batch_size=options.batch_size,
            device=options.device,
            parts=options.parts,
        )
        print(table(report))
    if options.json:
        write_json(options.json, report)


def _counts(counts: Mapping[str, int]) -> str:
    total, width = max(sum(counts.values()), 1), max(map(len, counts))
    return "\n".join(f"{k:{width}} {n:8,} {n / total:7.1%}" for k, n in counts.items())


def _counts_in_line(counts: Mapping[str, int]) -> str:
    """Of the classes that there are, the most frequent first.

    >>> _counts_in_line({"a": 0, "b": 2, "c": 1200})
    '1,200 c, 2 b'
    """
    some = sorted(counts.items(), key=lambda count: -count[1])
    return ", ".join(f"{n:,} {name}" for name, n in some if n)


class _BatchLog:
    """What is printed of a batch; what was said of one plane of a stack is not said of the next."""

    def __init__(self) -> None:
        self._said: set[tuple[Path, str]] = set()

    def tell(self, progress: BatchProgress) -> None:
        """An image or plane that is settled; on a terminal, how far the others are."""
        outcome, step = progress.outcome, progress.step
        number = f"[{progress.settled} of {progress.n_images}] " if progress.n_images > 1 else ""
        if progress.message:
            print(progress.message, file=sys.stderr)
        elif outcome is not None and outcome.status == "failed":
            is_named = outcome.path.name in outcome.sentence and not outcome.plane
            name = "" if is_named else f"{outcome.name}: "
            why = "the same." if self._was_said(outcome, outcome.sentence) else outcome.sentence
            print(f"mambamic: {number}{name}{why}", file=sys.stderr)
        elif outcome is not None and outcome.status == "empty":
            print(f"{number}{outcome.name}: {outcome.sentence}", flush=True)
        elif outcome is not None:
            told = [f"{number}{outcome.name} -> {', '.join(map(str, outcome.files))}"]
            told += [outcome.sentence] if outcome.sentence else []
            told += [f"warning: {s}" for s in outcome.warnings if not self._was_said(outcome, s)]
            counts = _counts_in_line if outcome.plane else _counts
            print("\n".join([*told, counts(outcome.counts)]), flush=True)
        elif step is not None and sys.stderr.isatty():
            speed = f", {step.tiles_per_second:.0f} tiles/s" if step.seconds else ""
            line = f"{number}{progress.image}: {step.done:,} of {step.total:,}{speed}"
            print(f"\r\033[K{line}", end="\n" if step.done == step.total else "", file=sys.stderr)

    def _was_said(self, outcome: ImageOutcome, sentence: str) -> bool:
        key = outcome.path, sentence
        was_said = key in self._said
        self._said.add(key)
        return was_said


def _print_progress(progress: Progress) -> None:
    if sys.stderr.isatty():
        end = "\n" if progress.done == progress.total else "\r"
        print(f"{progress.done:,} of {progress.total:,}", end=end, file=sys.stderr)
