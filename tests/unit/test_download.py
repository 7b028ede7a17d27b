"""Downloads from a real server on this machine, which behaves as servers do."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from napari_mambamic.classifier import load_classifier
from napari_mambamic.errors import WeightsError
from napari_mambamic.weights import store
from napari_mambamic.weights.store import (
    add_weights,
    bundled_folder,
    fetch_weights,
    is_here,
    iter_fetch,
    list_weights,
    read_manifest,
    remove_weights,
)

FILE = "cells-from-afar.safetensors"
CONTENT = (bundled_folder() / "blood-cells-t.safetensors").read_bytes()


class Server(ThreadingHTTPServer):
    """Serves one file; `plan` says how each request in turn is answered, the last for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.plan, self.ranges = CONTENT, ["whole"], []
        self.takes_ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights"

    def handle_error(self, request, address):
        pass  # a client that goes away in the middle is part of the tests


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        answer = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
        server.ranges.append(self.headers.get("Range"))
        if isinstance(answer, int):
            self.send_error(answer)
            return
        start = 0
        if self.headers.get("Range") and server.takes_ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if answer == "half":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
            return
        step = len(body) // 20 + 1
        for first in range(0, len(body), step):
            if answer == "slow":
                time.sleep(0.02)
            self.wfile.write(body[first : first + step])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    running = Server()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    """One set of weights to download; cache and own folder are empty."""
    manifest = json.loads((bundled_folder() / "blood-cells-t.json").read_text(encoding="utf-8"))
    manifest["name"] = "cells-from-afar"
    registry = {
        "base_url": "http://127.0.0.1:9/",  # nothing listens there
        "weights": {
            "cells-from-afar": {
                "file": FILE,
                "size": len(CONTENT),
                "sha256": hashlib.sha256(CONTENT).hexdigest(),
                "manifest": manifest,
            }
        },
    }
    monkeypatch.setattr(store, "_registry", lambda: registry)
    monkeypatch.setenv("MAMBAMIC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_DIR", str(tmp_path / "own"))
    monkeypatch.delenv("MAMBAMIC_WEIGHTS_URL", raising=False)
    return registry


def fetch(server, **more):
    return fetch_weights("cells-from-afar", source=server.url, pause_s=0.01, **more)


def test_registered_weights_are_listed_and_described_without_a_connection():
    assert list_weights() == ("blood-cells-t", "cells-from-afar")
    assert read_manifest("cells-from-afar").class_names[0] == "basophil"
    assert is_here("default")
    assert not is_here("cells-from-afar")


def test_weights_are_downloaded_once_and_classify(server, monkeypatch, cells):
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_URL", server.url)
    classifier = load_classifier("cells-from-afar", device="cpu")
    assert classifier.manifest.name == "cells-from-afar"
    expected = load_classifier(device="cpu").predict(cells[0, :2])
    assert np.array_equal(classifier.predict(cells[0, :2]).logits, expected.logits)
    assert is_here("cells-from-afar")
    load_classifier("cells-from-afar", device="cpu")
    assert len(server.ranges) == 1


def test_progress_counts_bytes(server):
    seen = []
    fetch(server, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == len(CONTENT)
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    assert seen[0].message == "Downloading cells-from-afar"


def test_a_broken_connection_is_resumed(server):
    server.plan = ["half", "half", "whole"]
    path = fetch(server)
    assert path.read_bytes() == CONTENT
    starts = [int((r or "bytes=0-").removeprefix("bytes=")[:-1]) for r in server.ranges]
    assert starts[0] == 0
    assert 0.45 * len(CONTENT) < starts[1] <= len(CONTENT) / 2 < starts[2]
    assert not path.with_suffix(".partial").exists()


def test_a_server_that_cannot_resume_sends_all_again(server):
    server.plan, server.takes_ranges = ["half", "whole"], False
    assert fetch(server).read_bytes() == CONTENT


def test_errors_of_the_server_are_tried_again(server):
    server.plan = [500, 503, "whole"]
    assert fetch(server).read_bytes() == CONTENT
    assert len(server.ranges) == 3


def test_what_a_cancelled_download_got_is_kept_for_the_next(server):
    server.plan = ["slow"]

    class Cancelled(Exception):
        pass

    def cancel(progress):
        if progress.done > progress.total / 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetch(server, on_progress=cancel)
    assert not is_here("cells-from-afar")
    assert fetch(server).read_bytes() == CONTENT
    assert server.ranges[1] is not None


def test_a_panel_can_watch_and_cancel_a_download(server):
    server.plan = ["slow"]
    watching = iter_fetch("cells-from-afar", source=server.url)
    assert next(watching).total == len(CONTENT)
    watching.close()
    assert not is_here("cells-from-afar")
    for _ in (watching := iter_fetch("cells-from-afar", source=server.url)):
        pass
    assert is_here("cells-from-afar")
    assert server.ranges[1] is not None


@pytest.mark.parametrize(
    ("plan", "requests", "sentence"),
    [
        ([404], 1, r"answered 404 \(Not Found\) for http.*Check the address"),
        ([500], 4, r"answered 500 .* try again later"),
        (["half", "half", "half", "half"], 4, "connection broke off.*what has arrived is kept"),
    ],
)
def test_a_server_that_fails_for_good_gets_a_sentence(server, plan, requests, sentence):
    server.plan = plan
    with pytest.raises(WeightsError, match=sentence):
        fetch(server)
    assert len(server.ranges) == requests
    assert not is_here("cells-from-afar")


def test_another_file_than_the_registered_one_is_thrown_away(server):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(WeightsError, match=r"its SHA-256 is another\. It was thrown"):
        fetch(server)
    assert not list(store.cache_folder().rglob("*.safetensors"))
    assert not list(store.cache_folder().rglob("*.partial"))
    server.content = CONTENT
    assert fetch(server).read_bytes() == CONTENT


def test_without_a_connection_the_bundled_weights_work_and_others_say_so():
    assert load_classifier(device="cpu").class_names[0] == "basophil"
    with pytest.raises(WeightsError, match="there is no connection to the server"):
        fetch_weights("cells-from-afar", pause_s=0.01)


def test_a_cache_whose_place_is_taken_gets_a_sentence(server, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(WeightsError, match=r"cannot be written .* MAMBAMIC_CACHE_DIR"):
        fetch(server)


@pytest.mark.parametrize("as_url", [False, True])
def test_a_folder_of_the_lab_serves_as_well(tmp_path, monkeypatch, as_url):
    folder = tmp_path / "lab share"
    folder.mkdir()
    (folder / FILE).write_bytes(CONTENT)
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_URL", folder.as_uri() if as_url else str(folder))
    assert fetch_weights("cells-from-afar").read_bytes() == CONTENT
    monkeypatch.setenv("MAMBAMIC_CACHE_DIR", str(tmp_path / "other"))
    (folder / FILE).unlink()
    with pytest.raises(WeightsError, match=r"There is no file .*cells-from-afar\.safetensors"):
        fetch_weights("cells-from-afar")
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_URL", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="is no folder and no http address"):
        fetch_weights("cells-from-afar")


def test_a_folder_of_weights_is_registered_offline(tmp_path):
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / "from-a-stick.safetensors").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="no manifest"):
        add_weights(stick)
    manifest = (bundled_folder() / "blood-cells-t.json").read_text(encoding="utf-8")
    (stick / "from-a-stick.json").write_text(manifest, encoding="utf-8")
    assert add_weights(stick) == ("from-a-stick",)
    assert "from-a-stick" in list_weights()
    assert load_classifier("from-a-stick", device="cpu").class_names[0] == "basophil"
    with pytest.raises(WeightsError, match="weights 'from-a-stick' already"):
        add_weights(stick)
    with pytest.raises(WeightsError, match=r"holds no \.safetensors"):
        add_weights(tmp_path)


def test_weights_are_not_called_default(tmp_path):
    with pytest.raises(WeightsError, match="weights 'default' already"):
        add_weights(on_a_stick(tmp_path, "default"))


def on_a_stick(tmp_path, name):
    """A weights file with its manifest, to be added."""
    stick = tmp_path / "stick"
    stick.mkdir(exist_ok=True)
    (stick / f"{name}.safetensors").write_bytes(CONTENT)
    manifest = (bundled_folder() / "blood-cells-t.json").read_text(encoding="utf-8")
    (stick / f"{name}.json").write_text(manifest, encoding="utf-8")
    return stick / f"{name}.safetensors"


def test_weights_that_were_added_are_removed_from_the_user_s_folder_alone(tmp_path):
    files = [on_a_stick(tmp_path, name) for name in ("mine", "other")]
    add_weights(tmp_path / "stick")
    size = (store.own_folder() / "mine.json").stat().st_size
    assert remove_weights("mine") == len(CONTENT) + size
    assert list_weights() == ("blood-cells-t", "other", "cells-from-afar")
    left = sorted(path.name for path in store.own_folder().iterdir())
    assert left == ["other.json", "other.safetensors"]
    assert all(file.is_file() for file in files)
    with pytest.raises(
        WeightsError, match=r"no weights 'mine' on this computer.* removed: other\."
    ):
        remove_weights("mine")


def test_downloads_are_removed_with_their_older_versions_and_can_be_fetched_again(server):
    path = fetch(server)
    older = store.cache_folder() / ("0" * 12) / path.name
    older.parent.mkdir()
    older.write_bytes(b"older")
    not_ours = store.cache_folder() / "my own" / path.name
    not_ours.parent.mkdir()
    not_ours.write_bytes(b"mine")
    size = path.with_suffix(".json").stat().st_size
    assert remove_weights("cells-from-afar") == len(CONTENT) + size + len(b"older")
    assert [p for p in store.cache_folder().rglob("*") if p.is_file()] == [not_ours]
    assert not is_here("cells-from-afar")
    assert "cells-from-afar" in list_weights()
    assert fetch(server).read_bytes() == CONTENT


def test_own_weights_of_a_registered_name_are_removed_before_the_download(server, tmp_path):
    path = fetch(server)
    add_weights(on_a_stick(tmp_path, "cells-from-afar"))
    remove_weights("cells-from-afar")
    assert path.is_file()
    assert not list(store.own_folder().iterdir())
    remove_weights("cells-from-afar")
    assert not path.exists()


@pytest.mark.parametrize("name", ["default", "blood-cells-t"])
def test_weights_of_the_package_are_not_removed(name):
    with pytest.raises(WeightsError, match="come with the package and cannot be removed"):
        remove_weights(name)
    assert load_classifier(name, device="cpu").class_names[0] == "basophil"


def test_files_outside_of_the_folders_are_not_removed(tmp_path):
    path = on_a_stick(tmp_path, "mine")
    for name in (str(path), str(path.with_suffix("")), "../stick/mine", "*"):
        with pytest.raises(WeightsError, match=r"on this computer.* removed: none\."):
            remove_weights(name)
    assert path.is_file()


def test_a_name_with_a_dot_is_a_name(tmp_path):
    add_weights(on_a_stick(tmp_path, "cells-v1.2"))
    assert load_classifier("cells-v1.2", device="cpu").class_names[0] == "basophil"
    remove_weights("cells-v1.2")
    assert list_weights() == ("blood-cells-t", "cells-from-afar")
