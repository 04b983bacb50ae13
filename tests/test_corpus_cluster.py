"""The same bytes from datatrove's executors as from our own pool."""

import pytest

from janeox.config import CorpusConfig
from janeox.corpus.cluster import clean_on
from janeox.corpus.pipeline import clean_corpus
from janeox.errors import JaneoxError
from test_corpus_pipeline import EMBEDDED, files


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_datatroves_executors_make_the_same_bytes(executor, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    sources = {name: EMBEDDED[name] for name in ("wiki", "mc4")}
    config = CorpusConfig(sources, valid_fraction=0.1, near_duplicates=True, decontaminate_valid=True, workers=1)
    clean_corpus(config, tmp_path / "ours")
    settings = {"workers": 2} if executor == "local" else {"cpus_per_task": 1, "mem_per_cpu_gb": 0.2}
    clean_on(executor, config, tmp_path / "theirs", tasks=2, logging_dir=tmp_path / "logs", **settings)
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")


def test_an_unknown_executor(tmp_path):
    with pytest.raises(JaneoxError, match="executor 'kubernetes': use local or ray"):
        clean_on("kubernetes", CorpusConfig(EMBEDDED), tmp_path / "out", tasks=2)
