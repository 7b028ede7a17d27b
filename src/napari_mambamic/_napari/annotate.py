"""Labelling tiles or objects of an image by clicking and with the keys 1 to 9."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Image, Points

from napari_mambamic._napari.from_layer import finest_of, plane_of_layer, some_pixels_of
from napari_mambamic._napari.tile_highlight import TileHighlight
from napari_mambamic._napari.to_layers import colours_in, place_of
from napari_mambamic.errors import MambamicError
from napari_mambamic.tiling import Tile, places_of, plan_tiles
from napari_mambamic.training.annotations import Annotations, path_in_user_data

HELP = (
    "Keys 1-9 give their class to the tile under the cursor, and clicks then give it too. 0: no "
    "class. u: undo. n: next tile without a class, which the keys then label until the cursor "
    "moves."
)


class Annotator:
    """A Points layer of square points, one on each labelled tile, and the keys while it is active.

    Parameters
    ----------
    viewer : napari.Viewer
    image : Image
    tile_size : int
    class_names : sequence of str
    tiles : sequence of Tile, optional
        Those that can be labelled, such as one around each object; by default a grid.
    on_change : callable, optional
        Called after each change.
    journal : path, optional
        Where the labels are kept; by default in the user's data folder, by image and tile size.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        *,
        tile_size: int,
        class_names: Sequence[str],
        tiles: Sequence[Tile] | None = None,
        on_change: Callable[[], object] | None = None,
        journal: Path | None = None,
    ) -> None:
        self._viewer, self._on_change = viewer, on_change
        self.image, self.tile_size = image, tile_size
        self.plane = plane_of_layer(viewer, image)
        self.tiles = list(
            plan_tiles(self.plane.image.plane_shape, tile_size=tile_size)
            if tiles is None
            else tiles
        )
        self._is_grid = tiles is None
        self._places = places_of(self.tiles)
        self._centres = self._places[:, :2] + (tile_size - 1) / 2
        cut = "tiles" if tiles is None else "objects"
        self.annotations = Annotations(
            journal or journal_of(image, tile_size, self.plane.index, cut)
        )
        self._named = list(class_names)
        self.class_names = list(dict.fromkeys([*class_names, *self.annotations.classes]))
        self.current = 0
        self.refusal = ""  # why the last key or click gave no class
        self._gone_to: tuple[int, tuple[float, ...]] | None = None  # a tile; where the cursor was
        self._marked = TileHighlight(viewer, "tile to label")
        self.layer = Points(
            np.zeros((0, image.ndim)),
            name=f"{image.name} annotations",
            symbol="square",
            size=tile_size,
            border_width=0.04,
            opacity=0.7,
            **place_of(image),
        )
        self.layer.editable = False
        for number in range(10):
            self.layer.bind_key(str(number), self._key(number))
        self.layer.bind_key("u", self._undo)
        self.layer.bind_key("n", self._go_to_next)
        self.layer.mouse_drag_callbacks.append(self._click)
        viewer.add_layer(self.layer)
        self._show()

    def is_of(self, tiles: Sequence[Tile] | None) -> bool:
        """Whether these are the tiles that can be labelled; None is the grid."""
        return self._is_grid if tiles is None else self.tiles == list(tiles)

    def set_classes(self, names: Sequence[str]) -> None:
        """Change the names that the keys give; tiles of a class that is renamed go with it."""
        self.refusal = ""
        if len(names) == len(self._named):
            pairs = zip(self._named, names, strict=True)
            renamed = {a: b for a, b in pairs if a not in names and b not in self.class_names}
            self._try(self.annotations.rename, renamed)
        self._named = list(names)
        self.class_names = list(dict.fromkeys([*names, *self.annotations.classes]))
        self.current = min(self.current, len(names) - 1)
        self._show()

    def label(self, index: int, name: str | None) -> None:
        """Give a tile, by its number in `tiles`, a class, or none."""
        self._mark()
        self._try(self.annotations.label, self.tiles[index], name)
        self._show()

    def _try(self, change: Callable[..., object], *arguments: object) -> None:
        """Change the labels, and tell where they cannot be kept."""
        self.refusal = ""
        try:
            change(*arguments)
        except MambamicError as error:
            self.refusal = str(error)

    def tile_at(self, world: Sequence[float]) -> int | None:
        """Number of the tile that holds a place of the world; of several, the nearest.

        None where there is no tile, or where another plane of a stack is in view.
        """
        *leading, y, x = np.asarray(self.layer.world_to_data(world)[-self.layer.ndim :])
        if tuple(np.round(leading).astype(int)) != self.plane.index:
            return None
        place = np.array((y, x))
        distance = np.abs(self._centres - place).max(axis=1)
        nearest = int(distance.argmin())
        return nearest if distance[nearest] <= self.tile_size / 2 else None

    def next_unlabelled(self) -> int | None:
        """Number of the first tile after the last labelled one that has no class."""
        labelled = self.annotations.tiles
        after = self.tiles.index(labelled[-1]) + 1 if labelled and labelled[-1] in self.tiles else 0
        for index in [*range(after, len(self.tiles)), *range(after)]:
            if self.annotations.class_of(self.tiles[index]) is None:
                return index
        return None

    def _key(self, number: int) -> Callable[[Points], None]:
        def press(layer: Points) -> None:
            name = None
            if number:
                if number > len(self.class_names):
                    self._viewer.status = f"There is no class {number} yet."
                    return
                self.current = number - 1
                name = self.class_names[number - 1]
            index = self._tile_at_hand()
            self.refusal = "" if index is not None else self._other_plane()
            if index is not None:
                self.label(index, name)
            elif self._on_change is not None:
                self._on_change()  # clicks give another class

        return press

    def _tile_at_hand(self) -> int | None:
        """The tile that `n` went to, until the cursor moves; then the one under it."""
        cursor = tuple(self._viewer.cursor.position)
        if self._gone_to is not None and self._gone_to[1] == cursor:
            return self._gone_to[0]
        return self.tile_at(cursor)

    def _other_plane(self) -> str:
        """What to do where another plane is in view than the one that is labelled."""
        try:
            index = plane_of_layer(self._viewer, self.image).index
        except MambamicError as error:
            return str(error)
        if index == self.plane.index:
            return ""
        return (
            f"Plane {_words(self.plane.index)} is labelled, and {_words(index)} is in view. Go "
            f"back, or press Start labelling here."
        )

    def _undo(self, layer: Points) -> None:
        self._try(self.annotations.undo)
        self._show()

    def _go_to_next(self, layer: Points) -> None:
        if refusal := self._other_plane():
            self.refusal = refusal
            self._show()
            return
        index = self.next_unlabelled()
        if index is None:
            self._viewer.status = "Every tile has a class."
            return
        place = (*self.plane.index, *self._centres[index])
        scene = getattr(self._viewer, "scene", self._viewer)  # napari has moved the camera there
        scene.camera.center = self.layer.data_to_world(place)
        self._gone_to = index, tuple(self._viewer.cursor.position)
        self._mark(index)
        self._viewer.status = f"Tile {index + 1}, the one with a frame: keys 1-9 label it."

    def _mark(self, *indices: int) -> None:
        """Frame tiles, or none."""
        chosen = np.array(indices, np.intp)
        self._marked.show(self.plane, self.tiles, self._places, chosen)

    def _click(self, layer: Points, event: Any) -> Any:
        if event.button != 1:
            return
        yield
        if event.type == "mouse_move":
            return  # a drag moves the view
        index = self.tile_at(event.position)
        if index is not None:
            self.label(index, self.class_names[self.current])
        elif refusal := self._other_plane():
            self.refusal = refusal
            self._show()

    def _show(self) -> None:
        classes = self.annotations.classes
        names = list(dict.fromkeys([*self.class_names, *classes]))
        colours = colours_in(self._viewer, names)
        centres = [
            (*self.plane.index, t.y + (t.size - 1) / 2, t.x + (t.size - 1) / 2)
            for t in self.annotations.tiles
        ]
        layer = self.layer
        layer.data = np.array(centres, float).reshape(-1, self.image.ndim)
        layer.features = pd.DataFrame({"class": list(classes)}, dtype=object)
        # Other layers of the viewer show these classes in the same colours.
        layer.metadata["colours"] = dict(zip(names, colours, strict=True))
        if len(centres):
            chosen = colours[[names.index(name) for name in classes]]
            faces = chosen.copy()
            faces[:, 3] = 0.35
            layer.size, layer.face_color, layer.border_color = self.tile_size, faces, chosen
            layer.selected_data = set()
        if self._on_change is not None:
            self._on_change()


def _words(index: tuple[int, ...]) -> str:
    return ", ".join(map(str, index))


def journal_of(image: Image, tile_size: int, index: tuple[int, ...], cut: str) -> Path:
    """Where the labels of an image are kept from one session to the next."""
    source = getattr(image.source, "path", None)
    shape = finest_of(image).shape
    key = f"{source or image.name}|{tuple(shape)}|{tile_size}|{index}|{cut}|{some_pixels_of(image)}"
    return path_in_user_data("annotations", image.name, key, ".jsonl")
