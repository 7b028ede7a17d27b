"""Fetching a file over HTTP for pooch: with retries, resuming, progress and cancelling."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from napari_mambamic.errors import WeightsError

_TRIES = 4
_TIMEOUT_S = 30
_CHUNK = 1 << 16


class ResumingDownload:
    """A downloader as `pooch.retrieve` takes it.

    What has arrived is kept in a ``.partial`` file beside the cached one.  After a broken
    connection, or in another session, only the rest is asked for, where the server allows it.

    Parameters
    ----------
    partial : path
    on_bytes : callable, optional
        Called with the bytes so far and in all (0 when the server does not tell).  What it raises
        ends the download.
    pause_s : float
        Before the second try; twice as long before each further one.
    """

    def __init__(
        self,
        partial: Path,
        *,
        on_bytes: Callable[[int, int], object] | None = None,
        pause_s: float = 1.0,
    ) -> None:
        self.partial, self.on_bytes, self.pause_s = partial, on_bytes, pause_s

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        """Fetch `url` and move it to `output_file`."""
        for attempt in range(1, _TRIES + 1):
            try:
                self._fetch(url)
                break
            except requests.HTTPError as error:
                answer: Any = error.response
                if answer.status_code < 500 or attempt == _TRIES:
                    raise WeightsError(
                        f"The server answered {answer.status_code} ({answer.reason}) for {url}. "
                        f"Check the address of the weights, or try again later."
                    ) from error
            except requests.RequestException as error:
                if attempt == _TRIES:
                    raise WeightsError(
                        f"{url} could not be downloaded ({_said(error)}). Check the connection and "
                        f"try again; what has arrived is kept."
                    ) from error
            time.sleep(self.pause_s * 2 ** (attempt - 1))
        shutil.move(self.partial, output_file)

    def _fetch(self, url: str) -> None:
        have = self.partial.stat().st_size if self.partial.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self.partial.unlink()
                raise requests.ConnectionError("what had arrived was no part of this file")
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            done = have if resumed else 0
            length = int(response.headers.get("Content-Length", 0))
            with open(self.partial, "ab" if resumed else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    if self.on_bytes is not None:
                        self.on_bytes(done, (have if resumed else 0) + length if length else 0)


def _said(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return "there is no connection to the server"
