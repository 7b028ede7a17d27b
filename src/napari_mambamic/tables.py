"""Tables that users bring: CSV files, however a spreadsheet saved them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

from napari_mambamic.errors import MambamicError


@contextmanager
def table_rows(
    path: Path, error: type[MambamicError]
) -> Iterator[tuple[tuple[str, ...], Iterator[tuple[int, dict[str, str]]]]]:
    """The columns of a table, and the line and the cells of each row that is not empty.

    Commas, semicolons or tabs stand between cells.  Names of columns are in lower case; cells are
    without the space around them, and empty where a row is too short.

    Parameters
    ----------
    path : Path
    error : type of MambamicError
        What is raised where the file cannot be read as a table.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            separator = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator)
            columns = tuple(name.strip().lower() for name in next(reader, []))

            def rows() -> Iterator[tuple[int, dict[str, str]]]:
                for row in reader:
                    cells = [cell.strip() for cell in row]
                    if any(cells[len(columns) :]):
                        raise error(
                            f"{path} has {len(cells)} cells in line {reader.line_num}, and "
                            f"{len(columns)} columns. Put cells with {separator!r} in them in "
                            f"double quotes."
                        )
                    if any(cells):
                        filled = zip_longest(columns, cells[: len(columns)], fillvalue="")
                        yield reader.line_num, dict(filled)

            yield columns, rows()
    except UnicodeDecodeError as reason:
        raise error(
            f"{path} cannot be read as a table: it is not in UTF-8. Save it as CSV in UTF-8."
        ) from reason
    except (OSError, csv.Error) as reason:
        raise error(f"{path} cannot be read as a table: {reason}.") from reason
