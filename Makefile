# `make run` and `make test` need nothing but Python 3.11 or newer: they build .venv themselves.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run series test check browser bench clean

# The main job: the raw texts under data/ → a small Japanese model that speaks, in runs/tiny-cpu.
run: .venv/installed
	$(BIN)/janeox run recipes/tiny-cpu.toml

# The series, small: SFT, SFT-v2, reward model and PPO from that model, on the conversations under data/instruct, and in
# the end wins, ties and losses of PPO against SFT-v2 on prompts that neither has learned from.
SMALL := --optim.learning-rate 1e-3 --max-tokens 256 --batch-rows 16 --train.evaluate-every 10
series: run
	$(BIN)/janeox sft recipes/series/sft.toml --model runs/tiny-cpu/model $(SMALL)
	$(BIN)/janeox sft recipes/series/sft-v2.toml --model runs/tiny-cpu/model $(SMALL)
	$(BIN)/janeox reward recipes/series/reward.toml $(SMALL) --epochs 3
	$(BIN)/janeox ppo recipes/series/ppo.toml $(SMALL) --optim.learning-rate 2e-4 --batch-rows 32 --max-tokens 48 --iterations 30 --kl-horizon 320
	$(BIN)/janeox judge runs/ppo/model runs/sft-v2/model --reward runs/reward/model --data data/instruct/preference-valid.jsonl --max-tokens 48 --out runs/judged.jsonl

# Everything that must hold: style, types, tests.
test: check browser
	$(BIN)/python -m pytest -n 2

# The server's page is tested in a real browser. Root on Debian gets it here; elsewhere the test says what is missing.
browser:
	command -v chromium >/dev/null || ! command -v apt-get >/dev/null || test "$$(id -u)" -ne 0 || (apt-get update -qq && apt-get install -y -qq chromium)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python -m benchmarks.run

NATIVE := $(wildcard janeox/native/*)

INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet

# Made again whenever the dependencies or the compiled sources change; an interrupted install leaves no mark, so the next
# call finishes it. `installed` is janeox alone; `ready` has all that its tests compare with, too.
.venv/installed: pyproject.toml constraints.txt $(NATIVE)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "janeox needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --constraint constraints.txt --editable .
	touch $@

.venv/ready: .venv/installed constraints-transformers4.txt
	$(INSTALL) --constraint constraints.txt --editable '.[test]'
	rm -rf .venv/transformers4
	$(INSTALL) --no-deps --target .venv/transformers4 --requirement constraints-transformers4.txt
	touch $@

clean:
	rm -rf .venv runs
