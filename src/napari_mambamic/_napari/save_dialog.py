"""Asking where a file is to be saved, and whether what is there may be replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path

from napari.utils.history import get_save_history, update_save_history
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget


def path_to_save(
    parent: QWidget | None, title: str, suggested: str, kinds: Mapping[str, Sequence[str]]
) -> Path | None:
    """Ask for a path, beginning where napari saved last.

    Parameters
    ----------
    parent : QWidget or None
    title : str
        Of the dialog.
    suggested : str
        A file name, with its ending.
    kinds : mapping
        Endings by kind of file, such as ``{"Table": [".csv"]}``.  A name without any of them gets
        the first one of the kind that is chosen.

    Returns
    -------
    Path or None
        None where the user thought better of it.
    """
    filters = {f"{kind} ({' '.join('*' + e for e in kinds[kind])})": kinds[kind] for kind in kinds}
    first = str(_free(Path(get_save_history()[0], suggested), tuple(chain(*kinds.values()))))
    name, chosen = QFileDialog.getSaveFileName(parent, title, first, ";;".join(filters))
    if not name:
        return None
    update_save_history(name)
    if name.lower().endswith(tuple(chain(*kinds.values()))):
        return Path(name)
    path = Path(name + filters.get(chosen, next(iter(filters.values())))[0])
    # The dialog has asked only about what was typed.
    return path if may_replace(parent, [path]) else None


def may_replace(parent: QWidget | None, paths: Sequence[Path]) -> bool:
    """Ask whether files may be replaced, where there are any of them."""
    found = [path for path in paths if path.exists()]
    if not found:
        return True
    others = " is" if len(found) == 1 else f" and {len(found) - 1} of the others are"
    them = "it" if len(found) == 1 else "them"
    yes = QMessageBox.StandardButton.Yes
    answer = QMessageBox.question(
        parent,
        "Replace?",
        f"{found[0].name}{others} there already. Replace {them}?",
        yes | QMessageBox.StandardButton.No,
    )
    return bool(answer == yes)


def _free(path: Path, endings: tuple[str, ...]) -> Path:
    """Another name where there is a folder of this one, which a dialog would enter.

    An OME-Zarr is a folder.
    """
    ending = max((e for e in endings if path.name.endswith(e)), key=len, default="")
    stem = path.name.removesuffix(ending)
    names = (path.with_name(f"{stem} {number}{ending}") for number in count(2))
    return next(p for p in chain([path], names) if not p.is_dir())
