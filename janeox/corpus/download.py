"""Fetches the raw corpora: goes on where it stopped, checks what came, and waits out a server's bad hour."""

import errno
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from janeox.atomic import partial_name
from janeox.corpus.unpack import DAMAGE, unpack
from janeox.errors import JaneoxError
from janeox.progress import Progress, clock, progress
from janeox.settings.corpus import Download

HOMES = {
    "cc100": "https://data.statmt.org/cc-100/",
    "mc4": "https://huggingface.co/datasets/allenai/c4/resolve/main/multilingual/",
    "wikipedia": "https://dumps.wikimedia.org/other/cirrus_search_index/",
}
MC4_SHARDS = 1024
PORTION = 2**20
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""
ATTEMPTS = 8
"""Failures in a row, without a byte between them, after which it gives up; waits double from one second to a minute."""
AGENT = "janeox-download"

Wait = Callable[[float], None]


class _Broken(Exception):
    """This attempt failed; the next may not."""

    def __init__(self, reason: str, pause: float = 0):
        super().__init__(reason)
        self.pause = pause


def file_list(settings: Download, wait: Wait = time.sleep) -> list[str]:
    """Addresses of the corpus's files. Wikipedia's are read off the server's list: the newest complete dump, or `date`.

    Raises:
        JaneoxError: the shards are no range, or the server has no such dump.
    """
    home = settings.mirror or HOMES[settings.corpus]
    home += "" if home.endswith("/") else "/"
    if settings.corpus == "cc100":
        return [home + "ja.txt.xz"]
    if settings.corpus == "mc4":
        match = re.fullmatch(r"(\d+)-(\d+)", settings.shards or f"0-{MC4_SHARDS - 1}")
        if not match or not int(match[1]) <= int(match[2]) < MC4_SHARDS:
            raise JaneoxError(f"shards = {settings.shards!r}: give a range between 0-0 and 0-{MC4_SHARDS - 1}")
        numbers = range(int(match[1]), int(match[2]) + 1)
        return [f"{home}c4-ja.tfrecord-{number:05d}-of-{MC4_SHARDS:05d}.json.gz" for number in numbers]
    dates = sorted(set(re.findall(r'href="(?:[^"]*/)?(\d{8})/?"', _page(home, wait))), reverse=True)
    for date in [settings.date] if settings.date else dates:
        folder = f"{home}{date}/index_name=jawiki_content/"
        try:
            page = _page(folder, wait)
        except JaneoxError:
            continue
        files = sorted(set(re.findall(rf'href="(?:[^"]*/)?(jawiki_content-{date}-\d+\.json\.bz2)"', page)))
        if files and "_SUCCESS" in page:
            return [folder + name for name in files]
    raise JaneoxError(f"{home}: no complete dump of jawiki there; it has {', '.join(dates) or 'no dates'}")


def download(settings: Download, wait: Wait = time.sleep) -> list[Path]:
    """Fetches every file of a corpus that is not there yet into `out`; returns their paths.

    A file takes its name when it is whole: its size is what the server said, its SHA-256 too where the server states
    one, and with `check` its archive can be read to the end, checksums included. What was fetched of another stays as
    `.NAME.partial`, and the next call goes on from there.

    Raises:
        JaneoxError: the server has no such file, keeps failing, or sends what is damaged; or the disk is full.
    """
    paths = []
    addresses = file_list(settings, wait)
    settings.out.mkdir(parents=True, exist_ok=True)
    for number, address in enumerate(addresses, 1):
        path = settings.out / address.rsplit("/", 1)[1]
        if not path.exists():
            fetch(address, path, settings.check, f"{number}/{len(addresses)} {path.name}", wait)
        paths.append(path)
    return paths


def fetch(address: str, path: Path, check: bool, label: str, wait: Wait = time.sleep) -> None:
    """One file, with as many attempts as it takes while any brings bytes."""
    part = partial_name(path)
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            with progress(label, None, "bytes", before) as bar:
                _attempt(address, part, bar)
            if check:
                _check_archive(part, path.name)
            _finish(part, path)
            return
        except _Broken as error:
            came = (part.stat().st_size if part.exists() else 0) > before
            failures = 0 if came else failures + 1
            if failures == ATTEMPTS:
                raise JaneoxError(
                    f"{address}: {error}; tried {ATTEMPTS} times. The same command goes on later"
                ) from error
            pause = max(error.pause, min(60.0, 2.0 ** max(0, failures - 1)))
            print(f"{label}: {error}; again in {clock(pause)}", flush=True)
            wait(pause)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise JaneoxError(f"{path}: the disk is full. Free some space; the same command goes on") from error
            raise JaneoxError(f"{path}: cannot be written ({error.strerror or error})") from error


@dataclass
class _Answer:
    """What a server says of the body that follows."""

    start: int
    total: int | None
    sha256: str | None
    version: str
    """ETag or time of last change: tells whether the file is still the one that the first part came from."""


def _attempt(address: str, part: Path, bar: Progress) -> None:
    """Fetches what is missing of `part`. Raises _Broken; `part` then holds more, or nothing if it was wrong."""
    have = part.stat().st_size if part.exists() else 0
    note = part.with_name(part.name + ".version")
    version = note.read_text() if note.exists() else ""
    if not version:
        have = 0  # of what it is the beginning nobody knows
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    with _opened(address, headers) as (answer, body):
        if answer is None:  # nothing after `have`: it was whole, or is not this file
            part.unlink()
            raise _Broken("the server has less than was fetched before; starting over")
        bar.total = answer.total
        if answer.start == 0:
            bar.done = bar.start = 0
        note.write_text(answer.version)
        _check_space(part, answer)
        with part.open("r+b" if part.exists() else "wb") as file:
            file.truncate(answer.start)
            file.seek(answer.start)
            try:
                while portion := body.read(PORTION):
                    file.write(portion)
                    bar.advance(len(portion))
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise _Broken(f"broke off ({error or type(error).__name__})") from error
    size = part.stat().st_size
    if answer.total is not None and size != answer.total:
        if size > answer.total:
            part.unlink()
        raise _Broken(f"{size:,} of {answer.total:,} bytes came")
    if answer.sha256:
        with part.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != answer.sha256:
                part.unlink()
                raise _Broken("the SHA-256 is not the one that the server states; starting over")


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Keeps what the Hugging Face Hub says before it sends on to its storage: the file's SHA-256."""

    sha256: str | None = None

    def redirect_request(self, *args, **kwargs):
        self.sha256 = _sha256(args[4]) or self.sha256
        return super().redirect_request(*args, **kwargs)


class _opened:
    """`with _opened(address, headers) as (answer, body)`; answer is None where the server has no such range."""

    def __init__(self, address: str, headers: dict[str, str]):
        self.request = urllib.request.Request(address, headers={"User-Agent": AGENT, **headers})

    def __enter__(self) -> tuple[_Answer | None, http.client.HTTPResponse]:
        redirect = _Redirect()
        try:
            self.body = urllib.request.build_opener(redirect).open(self.request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code == 416:
                self.body = error
                return None, error  # type: ignore[return-value]
            if error.code in (408, 429) or error.code >= 500:
                after = error.headers.get("Retry-After", "")
                raise _Broken(f"HTTP {error.code}", float(after) if after.isdigit() else 0) from error
            raise JaneoxError(f"{self.request.full_url}: HTTP {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"no connection ({getattr(error, 'reason', error)})") from error
        said = self.body.headers
        start, total = 0, int(said["Content-Length"]) if said.get("Content-Length", "").isdigit() else None
        if self.body.status == 206:
            place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", said.get("Content-Range", ""))
            if not place or f"bytes={place[1]}-" != self.request.get_header("Range"):
                raise _Broken("the server sent another range than was asked for")
            start, total = int(place[1]), int(place[2])
        version = said.get("ETag") or said.get("Last-Modified") or ""
        return _Answer(start, total, _sha256(said) or redirect.sha256, version), self.body

    def __exit__(self, *error: object) -> None:
        self.body.close()


def _sha256(headers: http.client.HTTPMessage) -> str | None:
    value = headers.get("X-Linked-Etag", "").strip('"')
    return value if re.fullmatch("[0-9a-f]{64}", value) else None


def _check_space(part: Path, answer: _Answer) -> None:
    free = shutil.disk_usage(part.parent).free
    if answer.total is not None and answer.total - answer.start > free:
        raise JaneoxError(
            f"{part.parent}: {answer.total - answer.start:,} bytes are still to come and {free:,} are free; "
            "free some space and run it again"
        )


def _check_archive(part: Path, name: str) -> None:
    """Reads the archive to its end, which checks its own checksums."""
    try:
        with part.open("rb") as file, progress(f"check {name}", part.stat().st_size, "bytes") as bar:
            stream, told = unpack(part, file), 0
            while stream.read(PORTION):
                bar.advance(file.tell() - told)
                told = file.tell()
    except DAMAGE as error:
        part.unlink()
        raise _Broken(f"the archive is damaged ({error}); starting over") from error
    except OSError as error:
        if error.errno is not None:  # bzip2 reports damage as one without a number
            raise
        part.unlink()
        raise _Broken(f"the archive is damaged ({error}); starting over") from error


def _finish(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    part.with_name(part.name + ".version").unlink(missing_ok=True)


def _page(address: str, wait: Wait) -> str:
    for failures in range(ATTEMPTS):
        try:
            with _opened(address, {}) as (_, body):
                return body.read().decode("utf-8", "replace")
        except _Broken as error:
            reason = error
            wait(max(error.pause, min(60.0, 2.0**failures)))
    raise JaneoxError(f"{address}: {reason}; tried {ATTEMPTS} times")


def run_download(settings: Download) -> None:
    """The verb `download`."""
    paths = download(settings)
    size = sum(path.stat().st_size for path in paths)
    print(f"{settings.out}: {len(paths)} files, {size:,} bytes\nnext:   janeox clean RECIPE.toml")
