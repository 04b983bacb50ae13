"""The verb `chat`: history, commands, streaming, and a talk longer than the context."""

import builtins

import pytest

import janeox as package
from janeox.dialogue import Message
from janeox.tune.chat import fitting, recommended
from runs import janeox
from tuning import write_model


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("chat") / "model", tokenizer)


def talk(model, lines, monkeypatch):
    said = iter(lines)

    def typed(prompt):
        try:
            return next(said)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", typed)
    return janeox("chat", model, "--max-new-tokens", 5, "--seed", 1)


def test_talks_forgets_and_ends(model, monkeypatch):
    done = talk(
        model, ["こんにちは", "", "/nonsense", "続けて", "/reset", "こんにちは", "/system 短く", "はい"], monkeypatch
    )
    assert done.returncode == 0, done.stderr
    replies = [line for line in done.stdout.split("システム: ")[1:]]
    assert len(replies) == 4
    assert replies[0].split("/reset forgets")[0] == replies[2]  # forgotten: the same seed says the same again
    assert done.stdout.count("/reset forgets") == 2


def test_the_oldest_turns_go_first(model):
    lm = package.load(model)
    talk = [Message("system", "短く")]
    for _ in range(20):
        talk += [Message("user", "東京はどこですか"), Message("assistant", "関東です")]
    talk.append(Message("user", "本当ですか"))
    kept = fitting(lm, list(talk), 40)
    assert kept[0] == talk[0] and kept[-1] == talk[-1] and kept[1].role == "user"
    assert 3 < len(kept) < len(talk)


def test_sampling_that_the_cards_recommend():
    assert recommended("rinna/japanese-gpt-neox-3.6b-instruction-ppo") == (0.7, 1.1)
    assert recommended("rinna/japanese-gpt-neox-3.6b-instruction-sft-v2") == (0.7, 1.0)
    assert recommended("rinna/japanese-gpt-neox-3.6b") == (0.8, 1.0)
