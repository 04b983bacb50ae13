"""Kills at random moments, and where they hurt most: of a parent whose workers go on, and while the work folder is
being removed."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from janeox.config import CorpusConfig
from janeox.corpus import pipeline
from janeox.corpus.pipeline import clean_corpus
from test_corpus_pipeline import ROOT, corpus, files, prose

CODE = """
import sys
from pathlib import Path
from janeox import config
from janeox.corpus.pipeline import clean_corpus
if __name__ == "__main__":
    clean_corpus(eval(sys.argv[1], vars(config)), Path(sys.argv[2]))
"""

KILLS = """
import os, random, shutil, signal, sys, time
from dataclasses import replace
from pathlib import Path
from janeox import config
from janeox.corpus.pipeline import clean_corpus

def killed_at_random(given, out, kills, seed):
    finished = set()
    longest = 0.0
    while kills:
        started = time.monotonic()
        child = os.fork()
        if not child:
            clean_corpus(given, out)
            os._exit(0)
        delay = random.Random(seed + kills).uniform(0, longest) if longest else 60
        while not (ended := os.waitpid(child, os.WNOHANG)[0]) and time.monotonic() - started < delay:
            time.sleep(0.001)
        if ended:  # it came to its end: so long does it take; begin once more
            longest = max(longest, time.monotonic() - started)
            shutil.rmtree(out)
            finished = set()
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills -= 1
        if out.exists():
            shutil.rmtree(out)
            finished = set()
            continue
        done = {path for path in out.with_name(f".{out.name}.work").glob("*/*") if not path.name.startswith(".")}
        assert finished <= done, finished - done  # nothing that was done is lost
        finished = done
        print(given.workers, round(delay, 3), len(done))

if __name__ == "__main__":
    given, out = eval(sys.argv[1], vars(config)), Path(sys.argv[2])
    for workers, kills in ((1, 20), (2, 6)):
        killed_at_random(replace(given, workers=workers), out, kills, int(sys.argv[3]))
    clean_corpus(given, out)
"""


def test_kills_at_random_moments_and_any_number_of_workers_make_no_difference(tmp_path):
    """Each call goes on from the tasks that are done; the bytes are those of one undisturbed process, and of two."""
    for name in "abcd":
        texts = [prose(number) for number in range(60)] + [prose(number) + name for number in range(60)]
        corpus(tmp_path / "raw", *texts, name=f"{name}.txt")
    config = CorpusConfig(
        {"s": str(tmp_path / "raw/*.txt"), "t": str(tmp_path / "raw/a.txt")},
        valid_fraction=0.1,
        near_duplicates=True,
        minhash_bands=2,
        repeated_lines=60,
        decontaminate_valid=True,
        workers=1,
    )
    clean_corpus(config, tmp_path / "one")
    clean_corpus(replace(config, workers=2), tmp_path / "two")
    (tmp_path / "kills.py").write_text(KILLS)
    call = [sys.executable, str(tmp_path / "kills.py"), repr(config), str(tmp_path / "out"), "7"]
    done = subprocess.run(call, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills = [line.split() for line in done.stdout.splitlines()]
    assert len({number for workers, _, number in kills if workers == "1"}) > 3, kills  # they fell at different places
    assert files(tmp_path / "out") == files(tmp_path / "one") == files(tmp_path / "two")
    # A killed parent's worker may write for a moment after the work folder is gone; nobody goes on from that.
    assert not (tmp_path / ".out.work/fingerprint").exists()
    assert {path.name for path in tmp_path.iterdir()} - {".out.work"} == {"kills.py", "one", "out", "raw", "two"}


def test_a_killed_parents_workers_do_not_disturb_the_next_call(tmp_path):
    for name in "ab":
        corpus(tmp_path / "raw", *[prose(number) + name for number in range(4000)], name=f"{name}.txt")
    config = CorpusConfig({"s": str(tmp_path / "raw/*.txt")}, near_duplicates=True, minhash_bands=2, workers=2)
    script, out = tmp_path / "clean.py", tmp_path / "out"
    script.write_text(CODE)
    call = [sys.executable, str(script), repr(config), str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(call, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob(".out.work/clean/.*.partial/documents"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    first.kill()
    first.wait()
    assert not list(tmp_path.glob(".out.work/clean/0*"))  # both workers were in the middle of a task
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    clean_corpus(replace(config, workers=1), tmp_path / "undisturbed")
    assert files(out) == files(tmp_path / "undisturbed")


@pytest.mark.parametrize("lost", ["write/*/train-*", "write/*", "clean/*/documents", "repeats/*"])
def test_a_work_folder_half_removed_is_not_gone_on_from(tmp_path, monkeypatch, lost):
    config = CorpusConfig({"s": corpus(tmp_path / "raw", *map(prose, range(99)))}, valid_fraction=0.1, workers=1)
    clean_corpus(config, tmp_path / "undisturbed")
    whole = pipeline.shutil.rmtree

    def killed(folder: Path, **options: object) -> None:
        if not (folder / "write").exists():  # not yet the removal at the end
            return whole(folder, **options)
        for path in folder.glob(lost):
            whole(path) if path.is_dir() else path.unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        clean_corpus(config, tmp_path / "out")
    assert (tmp_path / ".out.work").exists()
    monkeypatch.undo()
    clean_corpus(config, tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")
