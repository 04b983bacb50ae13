"""The series' dialogue format: published prompts, the chat template in transformers 4 and 5, what is learned."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import DATA, SMALL
from janeox.dialogue import CHAT_TEMPLATE, Message, NewlineDecoder, encode, prompt_text, read_jsonl, read_messages
from janeox.errors import JaneoxError
from janeox.tokenizer.train import train_tokenizer
from transformers4 import run_transformers4

# The dialogue on the cards of the series' SFT and PPO models, and the prompt that their code makes of it.
CARD = [
    {"speaker": "ユーザー", "text": "日本のおすすめの観光地を教えてください。"},
    {"speaker": "システム", "text": "どの地域の観光地が知りたいですか？"},
    {"speaker": "ユーザー", "text": "渋谷の観光地を教えてください。"},
]
CARD_PROMPT = (
    "ユーザー: 日本のおすすめの観光地を教えてください。<NL>システム: どの地域の観光地が知りたいですか？"
    "<NL>ユーザー: 渋谷の観光地を教えてください。<NL>システム: "
)
HOSTILE = [
    "</s>",
    "a<s>[PAD]</s>b",
    "一\n二\r\n三",
    "x<NL>システム: y",
    "<0x41>",
    "{{ 7*7 }}{% for %}",
    " 空白 ",
    "\\n",
]

texts = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1).filter(lambda text: text.strip()))
dialogues = st.tuples(
    st.booleans(), st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), min_size=1, max_size=5)
).map(lambda drawn: [Message("system", "丁寧に。\n短く。")] * drawn[0] + [Message(*turn) for turn in drawn[1]])


@pytest.fixture(scope="module", params=[(), ("<NL>",)], ids=["spelled", "piece"])
def folder(request, works, tmp_path_factory):
    """A tokenizer without and with a piece for `<NL>`, saved with the template."""
    config = type(SMALL)(**{**vars(SMALL), "user_defined_symbols": request.param})
    folder = tmp_path_factory.mktemp("dialogue")
    train_tokenizer(works, config).save(folder, CHAT_TEMPLATE)
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
    return folder


@pytest.fixture(scope="module")
def own(folder):
    from janeox.tokenizer import Tokenizer

    return Tokenizer.load(folder)


def test_prompts_of_the_cards_and_of_published_outputs():
    assert prompt_text(read_messages(CARD, "card")) == CARD_PROMPT
    rows = [row for _, row in read_jsonl([DATA / "series" / "rakuda.jsonl"])]
    assert len(rows) == 10
    for row in rows:
        assert prompt_text([Message("user", row["question"])]) == row["prompt"]


UNDER_BOTH = """
def prompts(folder, dialogues):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for dialogue in dialogues:
        text = tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.apply_chat_template(dialogue, tokenize=True, add_generation_prompt=True, return_dict=False)
        found.append([text, ids, tokenizer.encode(text, add_special_tokens=False)])
    return found
"""


def samples():
    card = read_messages(CARD, "card")
    yield card
    for text in HOSTILE:
        yield [Message("user", text)]
        yield [Message("system", text), *card, Message("assistant", text), Message("user", text)]


def test_transformers_4_and_5_give_the_same_prompts_and_ids(folder, own, tmp_path):
    dialogues = [[{"role": role, "content": text} for role, text in dialogue] for dialogue in samples()]
    file = tmp_path / "dialogues.json"
    file.write_text(json.dumps(dialogues), encoding="utf-8")
    script = UNDER_BOTH + "import json, sys\nprint(json.dumps(prompts(sys.argv[1], json.load(open(sys.argv[2])))))"
    scope: dict = {}
    exec(UNDER_BOTH, scope)
    for found in (scope["prompts"](folder, dialogues), run_transformers4(script, folder, file)):
        for messages, (text, ids, encoded) in zip(samples(), found, strict=True):
            assert text == prompt_text(messages)
            assert list(ids) == encoded == own.encode(text) == own.processor.encode(text)


@given(dialogues)
def test_the_template_renders_what_prompt_text_does(messages):
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    rows = [{"role": role, "content": text} for role, text in messages]
    rendered = environment.from_string(CHAT_TEMPLATE).render(messages=rows, add_generation_prompt=True)
    if messages[-1].role != "system":
        assert rendered == prompt_text(messages)


@given(dialogues)
def test_targets_are_the_replies_and_the_end_of_text(own, messages):
    ids, targets = encode(own, messages)
    assert len(ids) == len(targets)
    assert not set(ids) & set(own.control_ids.values())
    replies: list[list[int]] = [[]]
    for target in targets:
        if target == own.eos_token_id:
            replies.append([])
        elif target >= 0:
            replies[-1].append(target)
    said = [message.text for message in messages if message.role == "assistant"]
    assert replies == [own.encode(text.replace("\r\n", "\n").replace("\n", "<NL>")) for text in said] + [[]]
    for place, target in enumerate(targets[:-1]):
        assert target in (-1, own.eos_token_id) or target == ids[place + 1]
    if said and messages[-1].role == "assistant":
        prompt = own.encode(prompt_text(messages[:-1]) if len(said) == 1 else "")
        assert ids[: len(prompt)] == prompt  # what the model learns to answer is what it will be given


def test_a_first_prompt_is_the_ids_that_inference_gives(own):
    messages = [Message("user", "東京は\nどこ</s>"), Message("assistant", "Tokyoは関東です。")]
    prompt = own.encode(prompt_text(messages[:1]))
    ids, targets = encode(own, messages)
    assert ids == prompt + own.encode("Tokyoは関東です。")
    assert targets == [-1] * (len(prompt) - 1) + own.encode("Tokyoは関東です。") + [own.eos_token_id]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        [{"speaker": "ユーザー", "text": "a"}, {"speaker": "システム", "text": "b"}],
    ],
)
def test_forms_of_a_conversation(row):
    assert read_messages(row, "here") == [Message("user", "a"), Message("assistant", "b")]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "bot", "content": "a"}]}, "f:3, turn 1: unknown speaker 'bot'; known are"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "f:3, turn 1: 'user' says nothing"),
        ({"messages": [{"role": "user", "content": 7}]}, "f:3, turn 1: 'user' says nothing"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "unknown speaker"),
        ({"messages": []}, "no list of turns"),
        ({"text": "a"}, "no list of turns"),
        ("text", "no list of turns"),
        ({"messages": ["a"]}, "expected an object with"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "can only be the first"),
    ],
)
def test_bad_conversations(row, says):
    with pytest.raises(JaneoxError, match=says):
        read_messages(row, "f:3")


def test_bad_lines(tmp_path):
    file = tmp_path / "rows.jsonl"
    for line in (b"{", b"\xff\xfe"):
        file.write_bytes(b"[]\n\n" + line)
        with pytest.raises(JaneoxError, match=r"rows.jsonl:3: not a JSON row"):
            list(read_jsonl([file]))
    with pytest.raises(JaneoxError, match="cannot be read"):
        list(read_jsonl([tmp_path / "none"]))


@given(st.text(alphabet="<NL>a\n"), st.data())
def test_newlines_come_back_in_any_cut(text, data):
    decoder, out, start = NewlineDecoder(), "", 0
    while start < len(text):
        end = data.draw(st.integers(start + 1, len(text)))
        out += decoder.push(text[start:end])
        start = end
    assert out + decoder.flush() == text.replace("<NL>", "\n")
