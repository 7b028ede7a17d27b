"""A run as a Python script that repeats it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_mambamic.errors import ExportError
from napari_mambamic.weights.store import list_weights

_GAP = "<-- put here"


def script_of(provenance: Mapping[str, Any], *, objects: Path | None = None) -> str:
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
    objects : Path, optional
        Where the objects of the run are: a label image (.tif), or points (y, x) in px (.csv).

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
    image, settings = provenance["image"], provenance["settings"]
    by_objects = settings["cut"] == "objects"
    function = "classify_objects" if by_objects else "classify_image"
    planes = _planes_of(provenance)
    reads_file = bool(image.get("path")) and not _plane_of(provenance)
    sources = _sources_of(provenance) if planes else []
    names = [function, "load_classifier", *(["open_image"] if reads_file else [])]
    names = ["as_image", *names] if sources else names
    inputs = ["image", *(["objects"] if by_objects else []), "classifier"]
    arguments = [*inputs, *(f"{k}={_literal(v)}" for k, v in _chosen(settings).items())]
    arguments += ["within=within"] if settings.get("within") else []
    blend = settings.get("blend") or "none"
    blended = "" if blend == "none" else f".blended({_literal(blend)})"
    computed = f"{function}({', '.join(arguments)}){blended}"
    if planes:
        given = _stack_lines(provenance, by_objects)
        last = _loop_lines(planes, _plane_lines(provenance, by_objects), computed)
    else:
        given = _image_lines(provenance, reads_file)
        given += [_objects_line(provenance, objects)] if by_objects else []
        last = [f"results = {computed}", "print(results.counts)"]
    return "\n".join(
        [
            _comment(f"Repeats a run of {provenance['created']}: {_versions(provenance)}."),
            *(_readers(objects) if by_objects and objects and not planes else []),
            *(["import numpy as np", ""] if sources else []),
            f"from napari_mambamic import {', '.join(names)}",
            *(["from napari_mambamic.errors import NothingToClassify"] if planes else []),
            "",
            *given,
            *_within_lines(provenance),
            *_classifier_lines(provenance["weights"], provenance["precision"]),
            "",
            *last,
            "",
        ]
    )


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


def _image_lines(provenance: Mapping[str, Any], reads_file: bool) -> list[str]:
    image = provenance["image"]
    if reads_file:
        chosen = (image.get("opened_with") or {}).items()
        arguments = [_literal(str(image["path"])), *(f"{k}={_literal(v)}" for k, v in chosen)]
        shape = [*image["plane_shape"], image["n_channels"]]
        found = "*image.plane_shape, image.n_channels"
        if provenance["settings"].get("channels"):  # those that were chosen, of any number
            shape, found = shape[:2], "*image.plane_shape,"
        return [
            f"image = open_image({', '.join(arguments)})",
            f"if ({found}) != {_literal(tuple(shape))}:",
            '    raise SystemExit("The file holds another image than that of the run.")',
        ]
    height, width = image["plane_shape"]
    plane = _plane_of(provenance)
    what = f"image {image['name']!r}, {height} x {width} px, {image['dtype']}, "
    what += f"{image['n_channels']} channel(s)"
    what += f", plane {list(plane)}" if plane else ""
    what += f", of {image['path']}" if image.get("path") else ""
    sources = (provenance.get("layer") or {}).get("channels")
    what += f", made of {', '.join(map(str, sources))}" if sources else ""
    return [_gap("image", what)]


def _stack_lines(provenance: Mapping[str, Any], by_objects: bool) -> list[str]:
    """The pixels and the objects of all planes: files do not say which of their axes are which."""
    image, layer = provenance["image"], provenance["layer"]
    height, width = image["plane_shape"]
    sources = _sources_of(provenance)
    lines = []
    for name, source in zip(_names_of(sources), sources, strict=True):
        axes = "..., " if source["leading_axes"] else ""
        what = f"layer {source['layer']!r}, an array ({axes}{height}, {width}) of {image['dtype']}"
        what += f", of {source['path']}" if source.get("path") else ""
        lines.append(_gap(name, what))
    if not sources:
        colours = f", {image['n_channels']}" if image["n_channels"] > 1 else ""
        what = f"the whole stack {image['name']!r}, an array (..., {height}, {width}{colours}) of "
        what += f"{image['dtype']}" + (f", of {image['path']}" if image.get("path") else "")
        lines.append(_gap("stack", what))
    if by_objects:
        name, what = "labels", f"the labels (..., y, x) of layer {layer['objects']!r}"
        if layer.get("points"):
            name = "points"
            what = f"the points (n, axes) of layer {layer['objects']!r}, in px of the stack"
        lines.append(_gap(name, what))
    return list(dict.fromkeys(lines))


def _plane_lines(provenance: Mapping[str, Any], by_objects: bool) -> list[str]:
    """Image, objects and what limits them, on one plane; some may lack the first axes."""
    layer = provenance["layer"]
    n_axes, channel_axis = len(layer["plane"]), layer.get("channel_axis")
    sources = _sources_of(provenance)
    lines = ["image = stack[plane]"]
    if sources:
        lines = [
            "channels = [",
            *(
                f"    {name}{_place_in(source, n_axes)},"
                for name, source in zip(_names_of(sources), sources, strict=True)
            ),
            "]",
            "image = as_image(np.stack(channels), channel_axis=0)",
        ]
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


def _readers(objects: Path) -> list[str]:
    return [
        "from numpy import loadtxt" if objects.suffix == ".csv" else "from tifffile import imread",
        "",
    ]


def _objects_line(provenance: Mapping[str, Any], objects: Path | None) -> str:
    layer = (provenance.get("layer") or {}).get("objects")
    if objects is not None:
        path = _literal(str(objects))
        read = f"imread({path})"
        if objects.suffix == ".csv":
            read = f'loadtxt({path}, delimiter=",", ndmin=2)'
        return f"objects = {read}  {_comment(f'layer {layer!r}')}"
    of_layer = f" of layer {layer!r}" if layer else ""
    what = f"the label image (y, x), or the points (n, 2) in px,{of_layer}"
    return _gap("objects", what)


def _within_lines(provenance: Mapping[str, Any]) -> list[str]:
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
        return [_gap("mask", f"the mask, or labels, (..., y, x){of_layer}")]
    return [_gap("within", f"the {within}, or label image (y, x){of_layer}")]


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
