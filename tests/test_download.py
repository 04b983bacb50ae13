"""`janeox download` against a local server that breaks off, lies, is busy, ignores ranges, and changes its file."""

import bz2
import hashlib
import lzma
import random
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from janeox.corpus import download as module
from janeox.corpus.download import ATTEMPTS, download, file_list
from janeox.errors import JaneoxError
from janeox.settings.corpus import Download

BODY = lzma.compress(random.Random(0).randbytes(300_000))
PART = ".ja.txt.xz.partial"


class Server(ThreadingHTTPServer):
    """Answers each request as the next of `acts` says; when they are used up, as it should."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/ja.txt.xz": BODY}
        self.acts, self.asked, self.sha256, self.version = [], [], "", '"1"'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server: Server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        act = server.acts.pop(0) if server.acts else ""
        if act == "busy" or self.path not in server.files:
            self.send_response(503 if act == "busy" else 404)
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.files[self.path]
        start = int(asked[6:-1]) if asked and act != "no ranges" else 0
        if self.headers.get("If-Range", server.version) != server.version:
            start = 0
        if asked and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = body[start:]
        self.send_response(206 if start else 200)
        if start:
            shift = act == "another range"
            self.send_header("Content-Range", f"bytes {start - shift}-{len(body) - 1}/{len(body)}")
        length = {"says more": len(rest) + 1000, "says less": len(rest) - 1000}.get(act, len(rest))
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", server.version)
        if server.sha256:
            self.send_header("X-Linked-Etag", f'"{server.sha256}"')
        self.end_headers()
        if act == "damaged":
            rest = rest[: len(rest) // 2] + bytes(100) + rest[len(rest) // 2 + 100 :]
        self.wfile.write(rest[: len(rest) // 2] if act == "breaks off" else rest)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def settings(server, folder, corpus="cc100", **others):
    return Download(corpus, folder, mirror=f"http://127.0.0.1:{server.server_port}", **others)


def fetched(server, folder, **others):
    pauses = []
    (path,) = download(settings(server, folder, **others), pauses.append)
    assert [file.name for file in folder.iterdir()] == [path.name]
    assert path.read_bytes() == BODY
    return pauses


def test_a_whole_file_comes_once(server, tmp_path):
    assert fetched(server, tmp_path) == []
    assert fetched(server, tmp_path) == [] and server.asked == [None]


def test_it_goes_on_where_it_broke_off(server, tmp_path):
    server.acts = ["breaks off"] * 4
    assert len(fetched(server, tmp_path)) == 4
    starts = [0] + [int(asked[6:-1]) for asked in server.asked[1:]]
    assert starts == sorted(set(starts)) and starts[1] == len(BODY) // 2


@pytest.mark.parametrize("act", ["no ranges", "another range"])
def test_servers_that_cannot_go_on(server, tmp_path, act):
    server.acts = ["breaks off", act, ""]
    fetched(server, tmp_path)


def test_busy_servers_are_waited_for(server, tmp_path):
    server.acts = ["busy", "busy", "breaks off", "busy"]
    assert fetched(server, tmp_path) == [7, 7, 1, 7]  # its Retry-After
    server.acts = ["busy"] * ATTEMPTS
    with pytest.raises(JaneoxError, match=rf"ja\.txt\.xz: HTTP 503; tried {ATTEMPTS} times"):
        download(settings(server, tmp_path / "never"), lambda pause: None)


def test_wrong_lengths(server, tmp_path):
    server.acts = ["says more"]
    fetched(server, tmp_path / "more")
    server.acts = ["says less"]
    fetched(server, tmp_path / "less")  # the archive tells


def test_damage_is_found_by_the_archive_and_by_the_checksum(server, tmp_path):
    server.acts = ["damaged"]
    fetched(server, tmp_path / "archive")
    server.acts, server.sha256 = ["damaged"], hashlib.sha256(BODY).hexdigest()
    fetched(server, tmp_path / "checksum", check=False)
    server.acts = ["damaged"] * ATTEMPTS
    server.asked.clear()
    with pytest.raises(JaneoxError, match="the SHA-256 is not the one"):
        download(settings(server, tmp_path / "never"), lambda pause: None)
    assert server.asked == [None] * ATTEMPTS


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path):
    server.acts = ["breaks off"]

    def change(pause):
        server.version = '"2"'
        server.files["/ja.txt.xz"] = lzma.compress(b"new")

    (path,) = download(settings(server, tmp_path), change)
    assert lzma.decompress(path.read_bytes()) == b"new"


def test_what_is_left_of_a_kill_is_used(server, tmp_path):
    (tmp_path / PART).write_bytes(BODY[:1000])
    (tmp_path / (PART + ".version")).write_text(server.version)
    fetched(server, tmp_path)
    assert server.asked == ["bytes=1000-"]


def test_a_whole_part_left_by_a_kill_and_one_of_nobody_knows_what(server, tmp_path):
    (tmp_path / PART).write_bytes(BODY)
    (tmp_path / (PART + ".version")).write_text(server.version)
    fetched(server, tmp_path)  # 416
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / PART).write_bytes(b"?" * 1000)
    fetched(server, tmp_path)


def test_a_full_disk_is_named_before_and_during(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(JaneoxError, match=r"bytes are still to come and 1,000 are free"):
            download(settings(server, tmp_path))

    class Full(module.Progress):
        def advance(self, amount, note=None):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("janeox.progress.Progress", Full)
    with pytest.raises(JaneoxError, match="the disk is full"):
        download(settings(server, tmp_path))
    monkeypatch.undo()
    fetched(server, tmp_path)


def test_no_server_and_no_file(server, tmp_path):
    with pytest.raises(JaneoxError, match="HTTP 404"):
        download(settings(server, tmp_path, "mc4", shards="0-0"))
    with pytest.raises(JaneoxError, match="no connection"):
        download(Download("cc100", tmp_path, mirror="http://127.0.0.1:9"), lambda pause: None)


def test_which_files():
    assert file_list(Download("cc100")) == ["https://data.statmt.org/cc-100/ja.txt.xz"]
    shards = file_list(Download("mc4"))
    assert len(shards) == 1024 and shards[3].endswith("/multilingual/c4-ja.tfrecord-00003-of-01024.json.gz")
    assert file_list(Download("mc4", shards="1022-1023"))[-1].endswith("c4-ja.tfrecord-01023-of-01024.json.gz")
    for wrong in ("5", "3-2", "0-1024"):
        with pytest.raises(JaneoxError, match="give a range between"):
            file_list(Download("mc4", shards=wrong))


def test_wikipedia_takes_the_newest_complete_dump(server, tmp_path):
    names = [f"jawiki_content-20260823-0000{n}.json.bz2" for n in range(2)]
    links = "".join(f'<a href="{name}">{name}</a>' for name in names)
    folder = "index_name=jawiki_content/"
    server.files = {
        "/": b'<a href="../">..</a><a href="20260823/">20260823/</a> <a href="20260830/">20260830/</a>',
        f"/20260830/{folder}": links.replace("0823", "0830").encode(),  # still being written
        f"/20260823/{folder}": (links + '<a href="_SUCCESS">').encode(),
        **{f"/20260823/{folder}{name}": bz2.compress(name.encode()) for name in names},
    }
    paths = download(settings(server, tmp_path, "wikipedia"))
    assert [bz2.decompress(path.read_bytes()).decode() for path in paths] == names
    with pytest.raises(JaneoxError, match="no complete dump of jawiki there; it has 20260830, 20260823"):
        file_list(settings(server, tmp_path, "wikipedia", date="20260101"))
