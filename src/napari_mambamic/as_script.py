"""A run as a Python script that repeats it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_mambamic.errors import ExportError
from napari_mambamic.image_files.opening import Opening
from napari_mambamic.weights.store import list_weights

_GAP = "<-- put here"
_IMPORTS = {
    "np": "import numpy as np",
    "zarr": "import zarr",
    "loadtxt": "from numpy import loadtxt",
    "imread": "from tifffile import imread",
}
_OURS = (
    "as_image",
    "classify_image",
    "classify_objects",
    "join_channels",
    "load_classifier",
    "open_image",
)


@dataclass(frozen=True)
class RunFiles:
    """Where a script finds what the provenance of a run does not hold; None: nowhere.

    Parameters
    ----------
    objects : Path or None
        A label image (.tif), or points (y, x) in px (.csv).  Of a run of several planes, the labels
        of the stack (.zarr), or its points with all axes.
    mask : Path or None
        What the run was limited to, as label images are; 0 is outside.
    opening : Opening or None
        How the image is read from its file.
    channels : tuple of Opening
        Of an image whose channels come from several files, how each is read from its own: the axes
        are those of its layer.
    """

    objects: Path | None = None
    mask: Path | None = None
    opening: Opening | None = None
    channels: tuple[Opening, ...] = ()


def script_of(provenance: Mapping[str, Any], files: RunFiles = RunFiles()) -> str:
    """Write a script that repeats a run, from the provenance of its results.

    Of a run of several planes, that of any plane will do: the script goes through all.

    It names the settings that change the labels and are not the defaults; the tile size and the
    precision it always names, because their defaults depend on the image and on the machine.  What
    the provenance does not hold (pixels without a file, objects, a mask, weights that are not
    registered) is a line with the mark ``<-- put here``.

    Parameters
    ----------
    provenance : mapping
        `TileResults.provenance`, or the ``.provenance.json`` file that is saved beside a table.
    files : RunFiles, optional
        Where some of that is.

    Returns
    -------
    str
        Python source; what it computes ends up in its variable ``results``: of several planes a
        dict, by where they lie along the leading axes of the stack.

    Raises
    ------
    ExportError
        The results are those of live labelling, which no weights can repeat.
    """
    if "live" in provenance:
        raise ExportError(
            "These results follow the labels that are set in the Train panel, and a script cannot "
            "repeat them. Train, press 'Use for Classify', and classify with those weights."
        )
    settings = provenance["settings"]
    by_objects = settings["cut"] == "objects"
    function = "classify_objects" if by_objects else "classify_image"
    planes = _planes_of(provenance)
    inputs = ["image", *(["objects"] if by_objects else []), "classifier"]
    arguments = [*inputs, *(f"{k}={_literal(v)}" for k, v in _chosen(settings).items())]
    arguments += ["within=within"] if settings.get("within") else []
    blend = settings.get("blend") or "none"
    blended = "" if blend == "none" else f".blended({_literal(blend)})"
    computed = f"{function}({', '.join(arguments)}){blended}"
    if planes:
        given = _stack_lines(provenance, by_objects, files)
        last = _loop_lines(planes, _plane_lines(provenance, by_objects, files), computed)
    else:
        given = _image_lines(provenance, files)
        given += [_objects_line(provenance, files.objects)] if by_objects else []
        last = [f"results = {computed}", "print(results.counts)"]
    given += _within_lines(provenance, files.mask)
    given += _classifier_lines(provenance["weights"], provenance["precision"])
    body = "\n".join([*given, "", *last, ""])
    about = _comment(f"Repeats a run of {provenance['created']}: {_versions(provenance)}.")
    return "\n".join([about, *_imports(body), "", body])


def gaps_of(script: str) -> list[str]:
    """Names of what has to be filled in.

    >>> gaps_of("image = ...  # <-- put here: an image")
    ['image']
    """
    lines = [line.partition(" = ...  # ") for line in script.splitlines()]
    return [name for name, _, comment in lines if comment.startswith(_GAP)]


def _chosen(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings to name; the size of a batch does not change the labels."""
    of_grids = ("overlap", "region", "skip_background") if settings["cut"] == "tiles" else ()
    names = ("tile_size", "object_scale", "channels", *of_grids, "unsure_below", "coverage")
    chosen = {name: settings[name] for name in names if settings.get(name)}
    if "unsure_below" in chosen and not settings.get("count_unsure", True):
        chosen["count_unsure"] = False
    if "region" in chosen:
        chosen["region"] = tuple(chosen["region"])  # a list, when it was read from JSON
    return chosen


def _imports(body: str) -> list[str]:
    """Lines that import what a script uses."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    others = [line for name, line in _IMPORTS.items() if name in used]
    ours = ", ".join(name for name in _OURS if name in used)
    lines = [*others, *([""] if others else []), f"from napari_mambamic import {ours}"]
    if "NothingToClassify" in used:
        lines.append("from napari_mambamic.errors import NothingToClassify")
    return lines


def _image_lines(provenance: Mapping[str, Any], files: RunFiles) -> list[str]:
    image, plane = provenance["image"], _plane_of(provenance)
    if files.opening is None and not files.channels and image.get("path") and not plane:
        opening = Opening(str(image["path"]), image.get("opened_with") or {})
        files = RunFiles(opening=opening)
    if files.opening is not None or files.channels:
        return _opening_lines(provenance, files, lambda axis: str(int(plane[axis])))
    height, width = image["plane_shape"]
    what = f"image {image['name']!r}, {height} x {width} px, {image['dtype']}, "
    what += f"{image['n_channels']} channel(s)"
    what += f", plane {list(plane)}" if plane else ""
    what += f", a list of its {n} levels, finest first" if (n := _n_levels(image)) > 1 else ""
    what += f", of {image['path']}" if image.get("path") else ""
    names = [str(name) for name in (provenance.get("layer") or {}).get("channels") or ()]
    for number, source in enumerate(_sources_of(provenance)):
        names[number] += f" of {source['path']}" if source.get("path") else ""
    what += f", made of {', '.join(names)}" if names else ""
    return [_gap("image", what)]


def _opening_lines(
    provenance: Mapping[str, Any], files: RunFiles, place: Callable[[int], str]
) -> list[str]:
    """Open the image at a plane, of which `place` tells where it lies along an axis."""
    if files.opening is not None:
        lines, what = [f"image = {_opened(files.opening, place)}"], "file holds"
    else:
        n_axes = len(_plane_of(provenance))
        lines, what = ["image = join_channels(", "    ["], "files hold"
        for source, opening in zip(_sources_of(provenance), files.channels, strict=True):
            missing = n_axes - source["leading_axes"]  # its layer may lack the image's first axes
            axes = {key: axis + missing for key, axis in opening.axes.items()}
            lines.append(f"        {_opened(replace(opening, axes=axes), place)},")
        lines += ["    ]", ")"]
    image = provenance["image"]
    shape = [*image["plane_shape"], image["n_channels"]]
    found = "*image.plane_shape, image.n_channels"
    if provenance["settings"].get("channels"):  # those that were chosen, of any number
        shape, found = shape[:2], "*image.plane_shape,"
    return [
        *lines,
        f"if ({found}) != {_literal(tuple(shape))}:",
        f'    raise SystemExit("The {what} another image than that of the run.")',
    ]


def _opened(opening: Opening, place: Callable[[int], str]) -> str:
    """The call that opens a file at a plane."""
    places = {key: place(axis) for key, axis in opening.axes.items()}
    channels = f"[{places.pop('c')}]" if "c" in places else None
    if opening.channels is not None:
        channels = repr(list(opening.channels))
    chosen = {name: _literal(value) for name, value in opening.keywords.items()} | places
    arguments = [_literal(opening.path), *(f"{name}={value}" for name, value in chosen.items())]
    opened = f"open_image({', '.join(arguments)})"
    opened += "" if channels is None else f".with_channels({channels})"
    return opened if opening.n_levels is None else f"{opened}.with_levels({opening.n_levels})"


def _stack_lines(provenance: Mapping[str, Any], by_objects: bool, files: RunFiles) -> list[str]:
    """The pixels and the objects of all planes."""
    image, layer = provenance["image"], provenance["layer"]
    is_read = files.opening is not None or files.channels
    lines = [] if is_read else _pixel_gaps(image, _sources_of(provenance))
    if by_objects:
        name, what = "labels", f"the labels (..., y, x) of layer {layer['objects']!r}"
        if layer.get("points"):
            name = "points"
            what = f"the points (n, axes) of layer {layer['objects']!r}, in px of the stack"
        lines.append(_given(name, files.objects, layer["objects"], what))
    return lines


def _pixel_gaps(image: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """The pixels of all planes as arrays: files do not say which of their axes are which."""
    (height, width), n_levels = image["plane_shape"], _n_levels(image)
    if sources:
        lines = []
        for name, source in zip(_names_of(sources), sources, strict=True):
            axes = "..., " if source["leading_axes"] else ""
            what = f"layer {source['layer']!r}, an array ({axes}{height}, {width}) of "
            what += f"{image['dtype']}" + (f", of {source['path']}" if source.get("path") else "")
            if n_levels > 1:
                what += f"; of {n_levels} levels this takes the finest, so labels may differ"
            lines.append(_gap(name, what))
        return list(dict.fromkeys(lines))
    colours = f", {image['n_channels']}" if image["n_channels"] > 1 else ""
    what = f"the whole stack {image['name']!r}, "
    what += f"a list of its {n_levels} levels, finest first: " if n_levels > 1 else "an array "
    what += f"(..., {height}, {width}{colours}) of {image['dtype']}"
    what += f", of {image['path']}" if image.get("path") else ""
    return [_gap("stack" if n_levels == 1 else "levels", what)]


def _plane_lines(provenance: Mapping[str, Any], by_objects: bool, files: RunFiles) -> list[str]:
    """Image, objects and what limits them, on one plane; some may lack the first axes."""
    layer = provenance["layer"]
    n_axes, channel_axis = len(layer["plane"]), layer.get("channel_axis")
    sources = _sources_of(provenance)
    if files.opening is not None or files.channels:
        lines = _opening_lines(provenance, files, lambda axis: f"plane[{axis}]")
    elif sources:
        lines = [
            "channels = [",
            *(
                f"    {name}{_place_in(source, n_axes)},"
                for name, source in zip(_names_of(sources), sources, strict=True)
            ),
            "]",
            "image = as_image(np.stack(channels), channel_axis=0)",
        ]
    elif _n_levels(provenance["image"]) > 1:
        lines = [
            "image = []",
            "for level in levels:  # which may have fewer planes than the finest",
            "    lengths = zip(plane, level.shape, levels[0].shape)",
            "    image.append(level[tuple(i * n // finest for i, n, finest in lengths)])",
        ]
    else:
        lines = ["image = stack[plane]"]
    if by_objects and layer.get("points"):
        lines.append("place = plane[len(plane) + 2 - points.shape[1] :]")
        there = "points[:, :-2].round() == place"
        if sources and channel_axis is not None:
            # Points that were marked at one channel are those of all.
            is_channel = f"np.arange(-len(place), 0) == {channel_axis - n_axes}"
            there = f"({there}) | ({is_channel})"
        lines.append(f"objects = points[({there}).all(axis=1), -2:]")
    elif by_objects:
        lines.append("objects = labels[plane[len(plane) + 2 - labels.ndim :]]")
    if layer.get("areas"):
        lines.append("within = areas[plane]")
    elif isinstance(provenance["settings"].get("within"), str):
        lines.append("within = mask[plane[len(plane) + 2 - mask.ndim :]]")
    return lines


def _loop_lines(
    planes: list[tuple[int, ...]], plane_lines: Sequence[str], computed: str
) -> list[str]:
    return [
        "results = {}",
        f"for plane in {planes!r}:",
        *(f"    {line}" for line in plane_lines),
        "    try:",
        f"        results[plane] = {computed}",
        "    except NothingToClassify as nothing:",
        "        print(plane, nothing)",
        "        continue",
        "    print(plane, results[plane].counts)",
    ]


def _sources_of(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where each of the chosen channels of a run comes from; none where none were chosen."""
    return list((provenance.get("layer") or {}).get("channel_sources") or ())


def _names_of(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a script calls the layer of each channel: "stack", or several by their numbers."""
    layers = list(dict.fromkeys(source["layer"] for source in sources))
    if len(layers) == 1:
        return ["stack"] * len(sources)
    return [f"stack_{layers.index(source['layer']) + 1}" for source in sources]


def _place_in(source: Mapping[str, Any], n_axes: int) -> str:
    """Where a plane lies in the layer of a channel, which may lack the first axes of the image.

    >>> _place_in({"leading_axes": 2, "axis": 1, "number": 4}, n_axes=2)
    '[plane[0], 4]'
    """
    leading = source["leading_axes"]
    at = [f"plane[{axis}]" for axis in range(n_axes - leading, n_axes)]
    if source["axis"] is not None:
        at[source["axis"]] = str(int(source["number"]))
    return f"[{', '.join(at)}]" if at else ""


def _given(name: str, path: Path | None, layer: str | None, what: str) -> str:
    """The line that reads what a layer holds from its file, or the gap for it."""
    if path is None:
        return _gap(name, what)
    where = _literal(str(path))
    reading = {
        ".csv": f'loadtxt({where}, delimiter=",", ndmin=2)',
        ".zarr": f'zarr.open({where}, mode="r")',
        ".tif": f"imread({where})",
    }
    return f"{name} = {reading[path.suffix]}  {_comment(f'layer {layer!r}')}"


def _objects_line(provenance: Mapping[str, Any], objects: Path | None) -> str:
    layer = (provenance.get("layer") or {}).get("objects")
    of_layer = f" of layer {layer!r}" if layer else ""
    what = f"the label image (y, x), or the points (n, 2) in px,{of_layer}"
    return _given("objects", objects, layer, what)


def _within_lines(provenance: Mapping[str, Any], mask: Path | None) -> list[str]:
    within = provenance["settings"].get("within")
    areas = (provenance.get("layer") or {}).get("areas")
    if areas:
        of_planes = [f"    {tuple(plane)!r}: {_literal(polygons)}," for plane, polygons in areas]
        return ["areas = {  # polygons of (y, x) in px, by plane", *of_planes, "}"]
    if not within:
        return []
    if isinstance(within, list):
        polygons = [f"    {_literal(polygon)}," for polygon in within]
        return ["within = [  # polygons of (y, x) in px", *polygons, "]"]
    layer = (provenance.get("layer") or {}).get("within")
    of_layer = f", of layer {layer!r}" if layer else ""
    if _planes_of(provenance):
        return [_given("mask", mask, layer, f"the mask, or labels, (..., y, x){of_layer}")]
    return [_given("within", mask, layer, f"the {within}, or label image (y, x){of_layer}")]


def _classifier_lines(weights: Mapping[str, Any], precision: str) -> list[str]:
    name = weights["name"]
    lines = []
    source = _literal(name)
    if name not in list_weights():
        what = f"the path of the .safetensors file of weights {name!r}"
        lines.append(_gap("weights", what))
        source = "weights"
    return [
        *lines,
        f"classifier = load_classifier({source}, precision={_literal(precision)})",
        f"if classifier.manifest.sha256 != {_literal(weights['sha256'])}:",
        '    raise SystemExit("These are other weights than those of the run.")',
    ]


def _plane_of(provenance: Mapping[str, Any]) -> tuple[int, ...]:
    """Index of the plane of a volume; empty for an image that is a plane."""
    return tuple((provenance.get("layer") or {}).get("plane") or ())


def _planes_of(provenance: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Of a run of several planes, where each lies."""
    layer = provenance.get("layer") or {}
    planes = [tuple(plane) for plane in layer.get("planes") or ()]
    if layer.get("channels") and not layer.get("channel_sources"):
        return []  # of a version that did not note where the channels came from
    return planes if len(planes) > 1 else []


def _n_levels(image: Mapping[str, Any]) -> int:
    return int(image.get("n_levels") or 1)  # earlier versions did not note it


def _versions(provenance: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in provenance["versions"].items())


def _gap(name: str, what: str) -> str:
    return f"{name} = ...  {_comment(f'{_GAP}: {what}')}"


def _comment(text: str) -> str:
    """One line, whatever characters the name of a layer or a file has."""
    return "# " + "".join(c for c in " ".join(text.split()) if c.isprintable())


def _literal(value: Any) -> str:
    # JSON writes strings as Python does, in double quotes.
    return json.dumps(value) if isinstance(value, str) else repr(value)
