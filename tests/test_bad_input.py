"""Bad input of every kind: one clear line, a status that is not 0, and nothing half-written under its final name."""

import bz2
import gzip
import json
import lzma
import resource
import shutil
import signal

import pytest

from runs import janeox, start, write_recipe

TEXT = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。\n\n"


def fails(*arguments, message):
    """Runs the command line, checks that it fails as it should, and returns its one line."""
    done = janeox(*arguments)
    lines = [line for line in done.stderr.splitlines() if line.startswith("janeox ")]
    assert done.returncode == 1 and len(lines) == 1, done
    assert message in lines[0] and "Traceback" not in done.stderr, lines[0]
    return lines[0]


def clean(tmp_path, raw, *settings, message):
    """A failing `clean` of one raw file, after which there is no corpus."""
    out = tmp_path / "run"
    fails("clean", "--out", out, "--corpus.sources", "web", raw, *settings, message=message)
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("packed, name", [(lzma, "ja.txt.xz"), (gzip, "ja.txt.gz"), (bz2, "ja.txt.bz2")])
def test_a_truncated_archive(tmp_path, packed, name):
    raw = tmp_path / name
    whole = packed.compress("".join(f"{number}{TEXT}" for number in range(20_000)).encode())
    raw.write_bytes(whole[: len(whole) // 2])
    clean(tmp_path, raw, "--corpus.stop-on-bad-rows", True, message=f"{name}: the archive is truncated or damaged")
    # By default one of a thousand files does not end the run: it is read as far as it goes, and named.
    done = janeox("clean", "--out", tmp_path / "kept", "--corpus.sources", "web", raw)
    assert done.returncode == 0, done.stderr
    assert f"damaged: {name}:" in done.stdout and "the archive is truncated or damaged" in done.stdout
    files = (tmp_path / "kept/corpus").glob("*/*.gz")
    documents = sum(gzip.decompress(file.read_bytes()).count(b"\n") for file in files)
    assert 1_000 < documents < 20_000


def test_invalid_utf8_throughout(tmp_path):
    raw = tmp_path / "ja.txt"
    raw.write_bytes(TEXT.encode("euc_jp") * 50)
    clean(tmp_path, raw, message="ja.txt")


def test_one_row_of_invalid_utf8_is_reported_and_passed_over(tmp_path):
    raw = tmp_path / "rows.jsonl"
    rows = [json.dumps({"text": f"{number}{TEXT}"}, ensure_ascii=False).encode() for number in range(9)]
    rows[4] = rows[4][:60] + b"\xff\xfe" + rows[4][60:]
    raw.write_bytes(b"\n".join(rows) + b"\n")
    done = janeox("clean", "--out", tmp_path / "run", "--corpus.sources", "web", raw, "corpus.min_chars=10")
    assert done.returncode == 0 and "rows.jsonl:5" in done.stdout


@pytest.mark.parametrize("content", ["", "\n\n\n", "short\n\n"])
def test_an_empty_corpus(tmp_path, content):
    raw = tmp_path / "empty.txt"
    raw.write_text(content)
    clean(tmp_path, raw, message="empty")


def test_raw_files_that_are_not_there(tmp_path):
    clean(tmp_path, tmp_path / "nowhere*.xz", message="matches no corpus file")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run and its recipe."""
    recipe = write_recipe(tmp_path_factory.mktemp("bad"))
    assert janeox("run", recipe, "train.tokens=512").returncode == 0
    return recipe.parent / "run", recipe


def test_a_folder_without_weights(run, tmp_path):
    model = shutil.copytree(run[0] / "model", tmp_path / "m")
    (model / "model.safetensors").unlink()
    fails("generate", "--model", model, message="no weights there")
    fails("generate", "--model", tmp_path / "nowhere", message="no such folder")
    (model / "spiece.model").unlink()
    fails("generate", "--model", model, message="no spiece.model")


def test_a_tokenizer_that_does_not_match_the_model(run, tmp_path):
    model = shutil.copytree(run[0] / "model", tmp_path / "m")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 1999}))
    fails("generate", "--model", model, message="config.json asks for")
    other = tmp_path / "other"
    done = janeox("train-tokenizer", run[1], "--out", other, "--input", run[0] / "corpus", "tokenizer.vocab_size=1900")
    assert done.returncode == 0, done.stderr
    again = ("--out", tmp_path / "again", "--shards", run[0] / "shards", "--tokenizer-folder")
    fails("pretrain", run[1], *again, other / "tokenizer", message="was not made with the tokenizer")
    small = "model.vocab_size=1999"
    fails("pretrain", run[1], *again, run[0] / "tokenizer", small, message="set model.vocab_size = 2000")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda shards: halve(next(shards.glob("train/**/*.bin"))), "but its index says"),
        (lambda shards: halve(next(shards.glob("valid/**/*.bin"))), "but its index says"),
        (lambda shards: halve(next(shards.glob("train/**/*.idx"))), "cut short or damaged"),
        (lambda shards: next(shards.glob("train/**/*.idx")).unlink(), "missing; tokenize again"),
        (lambda shards: halve(shards / "shards.json"), "shards.json: damaged"),
        (lambda shards: (shards / "shards.json").unlink(), "make shards with `janeox tokenize`"),
    ],
)  # fmt: skip
def test_half_written_shards_are_named_before_the_first_step(run, tmp_path, damage, message):
    shards = shutil.copytree(run[0] / "shards", tmp_path / "shards")
    damage(shards)
    files = ("--shards", shards, "--tokenizer-folder", run[0] / "tokenizer")
    fails("pretrain", run[1], "--out", tmp_path / "new", *files, message=message)
    assert not (tmp_path / "new" / "metrics.jsonl").exists() and not (tmp_path / "new" / "model").exists()


def test_ids_that_the_vocabulary_does_not_have(run, tmp_path):
    shards = shutil.copytree(run[0] / "shards", tmp_path / "shards")
    file = next(shards.glob("train/**/*.bin"))
    file.write_bytes(b"\xff\xff" * (file.stat().st_size // 2))
    files = ("--shards", shards, "--tokenizer-folder", run[0] / "tokenizer")
    fails("pretrain", run[1], "--out", tmp_path / "new", *files, message="to 65535 in a vocabulary of 2000")


def test_a_sample_prompt_longer_than_the_context(run, tmp_path):
    files = ("--shards", run[0] / "shards", "--tokenizer-folder", run[0] / "tokenizer", "train.sample_every=1")
    prompt = f"train.sample_prompt={'西' * 99}"
    fails("pretrain", run[1], "--out", tmp_path / "new", *files, prompt, message="train.sample_prompt has")
    assert not (tmp_path / "new").exists()


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("setting", ["model.hidden_size=64", "model.num_hidden_layers=3", "model.vocab_size=2048"])
def test_a_checkpoint_of_another_shape(run, tmp_path, setting):
    shutil.copytree(run[0] / "state", tmp_path / "new" / "state")  # by hand, without the settings that belong to it
    files = ("--shards", run[0] / "shards", "--tokenizer-folder", run[0] / "tokenizer")
    new = ("--out", tmp_path / "new", *files, "train.tokens=1024", setting)
    fails("pretrain", run[1], *new, message="state: cannot go on from it")
    assert not (tmp_path / "new" / "metrics.jsonl").exists()


def test_steps_in_the_wrong_order(run, tmp_path):
    wanted = {"train-tokenizer": "janeox clean", "tokenize": "janeox train-tokenizer", "pretrain": "janeox tokenize"}
    for verb, before in wanted.items():
        fails(verb, run[1], "--out", tmp_path / "new", message=before)
    assert not (tmp_path / "new").exists()


def small_files(limit):
    """In the child: no file may grow past `limit` bytes; writing more fails as on a full disk."""

    def set_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return set_limit


@pytest.mark.parametrize(
    "verb, limit, final",
    [("clean", 2_000, "corpus"), ("train-tokenizer", 10_000, "tokenizer"), ("tokenize", 10_000, "shards"),
     ("pretrain", 100_000, "model"), ("pretrain", 600_000, "state")],
)  # fmt: skip
def test_a_full_disk(run, tmp_path, verb, limit, final):
    needed = {"clean": [], "train-tokenizer": ["corpus"], "tokenize": ["corpus", "tokenizer"]}
    for name in needed.get(verb, ["tokenizer", "shards"]):
        shutil.copytree(run[0] / name, tmp_path / "new" / name)
    settings = ["train.tokens=512"] if verb == "pretrain" else []
    process = start(verb, run[1], "--out", tmp_path / "new", *settings, preexec_fn=small_files(limit))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "Traceback" not in output and "janeox " + verb + ": " in output and "nothing was changed there" in output
    assert not (tmp_path / "new" / final).exists() and not list((tmp_path / "new").glob(".*"))
