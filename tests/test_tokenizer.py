"""The tokenizer and chat format, alone and against transformers on the real Qwen3 files."""

from __future__ import annotations

import json
import shutil

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from shared.distillation.examples import build_sft_examples, make_example
from shared.model.tokenizer import Tokenizer
from tests.small_models import small_backend, small_tokenizer

TEXTS = [
    "",
    "Hello, world!",
    "If $x=\\frac{1}{2}$, then 12345 + 67.89 = 12412.89.\n\n  Done\t.",
    "naïve café — 日本語 ½ e\u0301 \U0001f600",
    "<think>\nOne < two.\n</think>\n\n\\boxed{7}<|im_end|>\n<|endoftext|>",
    "  leading and trailing  ",
]
CHATS = {
    "one turn": [{"role": "user", "content": "What is 2 < 3 & 'so'?"}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "several turns": [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>\neasy\n</think>\n\n2"},
        {"role": "user", "content": "And 2+2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "Thanks"},
    ],
    "reasoning apart": [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2", "reasoning_content": "One and one."},
    ],
}
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "a < b & 'c'", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(scope="module", params=["base", "chat"])
def qwen3(request, test_data, tmp_path_factory):
    """Our tokenizer and transformers' from the same folder, as the base model or the chat model has it."""
    transformers = pytest.importorskip("transformers")
    source = test_data / "qwen3-tokenizer"
    if not (source / "tokenizer.json").is_file():
        pytest.skip(f"the Qwen3 tokenizer files are not in {test_data}")
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    content = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    ends = [151645, 151643]
    if request.param == "base":
        content["eos_token"], ends = "<|endoftext|>", 151643
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    ours = Tokenizer.from_pretrained_folder(folder)
    return request.param, ours, transformers.AutoTokenizer.from_pretrained(folder)


# --- against transformers -----------------------------------------------------------------------------------


def test_qwen3_end_and_pad_tokens(qwen3):
    """Trap K7: base and chat models end their texts differently."""
    kind, ours, theirs = qwen3
    assert (ours.eos_id, ours.pad_id) == (theirs.eos_token_id, theirs.pad_token_id)
    assert ours.eos_id == {"base": 151643, "chat": 151645}[kind]
    assert ours.stop_ids == {"base": (151643,), "chat": (151645, 151643)}[kind]
    assert ours.vocab_size == len(theirs)


def test_qwen3_ids_and_text(qwen3):
    _, ours, theirs = qwen3
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs(text)["input_ids"]
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special_tokens=skip) == expected
    assert ours.decode(ours.encode(TEXTS[4])) == "<think>\nOne < two.\n</think>\n\n\\boxed{7}\n"


def test_qwen3_ids_of_math_problems(qwen3, test_data):
    path = test_data / "math500_test.json"
    if not path.is_file():
        pytest.skip(f"math500_test.json is not in {test_data}")
    _, ours, theirs = qwen3
    for problem in json.loads(path.read_text(encoding="utf-8"))[:60]:
        text = problem["problem"] + "\n" + problem["solution"]
        assert ours.encode(text) == theirs(text)["input_ids"]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("thinking", [None, True, False])
def test_qwen3_chat_template(qwen3, chat, thinking):
    _, ours, theirs = qwen3
    switch = {} if thinking is None else {"enable_thinking": thinking}
    for prompt in (True, False):
        expected = theirs.apply_chat_template(CHATS[chat], tokenize=False, add_generation_prompt=prompt, **switch)
        assert ours.apply_chat_template(CHATS[chat], prompt, thinking) == expected
    default = ours.apply_chat_template(CHATS[chat], enable_thinking=thinking)
    assert default.endswith("<think>\n\n</think>\n\n" if thinking is False else "<|im_start|>assistant\n")


def test_qwen3_chat_template_with_tools(qwen3):
    _, ours, theirs = qwen3
    chat = CHATS["system"]
    expected = theirs.apply_chat_template(chat, tools=[TOOL], tokenize=False, add_generation_prompt=True)
    assert ours.apply_chat_template(chat, tools=[TOOL]) == expected


# --- encoding and decoding ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_text_survives_encoding_and_decoding(text):
    tokenizer = small_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


def test_think_tags_stay_visible_and_special_tokens_do_not():
    tokenizer = small_tokenizer()
    ids = tokenizer.encode("<think>yes</think>no<|im_end|><|endoftext|>")
    assert tokenizer.decode(ids) == "<think>yes</think>no"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<think>yes</think>no<|im_end|><|endoftext|>"
    backend = small_backend()
    backend.add_special_tokens(["<think>", "</think>"])
    assert Tokenizer(backend).decode(ids) == "<think>yes</think>no", "also where a file calls the tags special"


def test_special_tokens_and_their_ids():
    tokenizer = small_tokenizer()
    assert tokenizer.special_tokens["<|im_end|>"] == tokenizer.token_id("<|im_end|>") == 2
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id, tokenizer.stop_ids) == (0, 0, None, (0, 2))
    assert tokenizer.vocab_size == 320


# --- folders ------------------------------------------------------------------------------------------------


def write_folder(folder, settings=None, **files):
    small_backend().save(str(folder / "tokenizer.json"))
    for name, content in {"tokenizer_config": settings or {}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_folder_with_tokens_written_as_dicts(tmp_path):
    settings = {"eos_token": {"content": "<|im_end|>", "special": True}, "bos_token": "<|im_start|>"}
    tokenizer = Tokenizer.from_pretrained_folder(write_folder(tmp_path, settings))
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (2, 2, 1)


def test_folder_that_names_its_end_token_by_id_only(tmp_path):
    tokenizer = Tokenizer.from_pretrained_folder(write_folder(tmp_path, config={"eos_token_id": [2, 0]}))
    assert tokenizer.stop_ids == (2, 0)
    write_folder(tmp_path, config={})
    with pytest.raises(ValueError, match="names the end token"):
        Tokenizer.from_pretrained_folder(tmp_path)


def test_where_the_chat_template_comes_from(tmp_path):
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    write_folder(tmp_path, {"eos_token": "<|im_end|>", "chat_template": named})
    assert Tokenizer.from_pretrained_folder(tmp_path).chat_template == "D"
    (tmp_path / "chat_template.jinja").write_text("{{ eos_token }}!", encoding="utf-8")
    tokenizer = Tokenizer.from_pretrained_folder(tmp_path)
    assert tokenizer.apply_chat_template(CHATS["one turn"]) == "<|im_end|>!"


def test_saving_and_reading_again(tmp_path):
    tokenizer = Tokenizer(small_backend(), eos="<|im_end|>", pad="<|endoftext|>", chat_template="X")
    tokenizer.save(tmp_path)
    again = Tokenizer.from_pretrained_folder(tmp_path)
    assert again.encode(TEXTS[2]) == tokenizer.encode(TEXTS[2])
    for name in ("eos_id", "pad_id", "bos_id", "stop_ids", "chat_template", "special_tokens"):
        assert getattr(again, name) == getattr(tokenizer, name)


# --- templates are foreign code -----------------------------------------------------------------------------


def render(template: str, **variables) -> str:
    tokenizer = Tokenizer(small_backend(), chat_template=template)
    return tokenizer.apply_chat_template(CHATS["one turn"], **variables)


def test_template_tools():
    assert render("{{ messages | tojson }}") == json.dumps(CHATS["one turn"], ensure_ascii=False)
    assert render("{% generation %}{{ messages[0].role }}{% endgeneration %}") == "user"
    assert render("{% for m in [1, 2] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}") == "1"
    assert render("{{ strftime_now('%Y') }}").isdigit()
    assert render("a\n  {% if true %}\nb{% endif %}") == "a\nb"
    assert render("{{ tools is none }} {{ extra }}", extra=3) == "True 3"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].content + 1 }}",
        "{% if %}",
    ],
)
def test_templates_that_fail_or_attack_give_one_sentence(template):
    with pytest.raises(ValueError, match="chat template cannot show these messages"):
        render(template)


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="no chat template: load a chat model"):
        Tokenizer(small_backend()).apply_chat_template(CHATS["one turn"])
    with pytest.raises(ValueError, match="no messages: give at least one"):
        small_tokenizer().apply_chat_template([])
    for wrong in (None, {"problem": "x"}, ["x"]):
        with pytest.raises(ValueError, match="is no text: give a prompt, such as render_prompt"):
            small_tokenizer().encode(wrong)
    with pytest.raises(ValueError, match="'<eos>' is not in the vocabulary"):
        Tokenizer(small_backend(), eos="<eos>")
    with pytest.raises(FileNotFoundError, match="is missing: restore it with git checkout"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text('{"version":', encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    write_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is damaged"):
        Tokenizer.from_pretrained_folder(tmp_path)


# --- what foreign files ask for -----------------------------------------------------------------------------


def test_truncation_and_padding_in_a_file_are_not_ours(tmp_path):
    """transformers writes both into tokenizer.json when they were in use; it switches them off at each call."""
    text = "The answer to the question is that the sum of the numbers is even, and more of the same text."
    backend = small_backend()
    expected = backend.encode(text).ids
    backend.enable_truncation(max_length=16)
    backend.enable_padding(length=16)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert tokenizer.encode(text) == expected
    assert tokenizer.encode("even") == [71, 303]
    tokenizer.save(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["truncation"] is saved["padding"] is None


def with_bos(**single):
    backend = small_backend()
    backend.post_processor = processors.TemplateProcessing(
        **{"single": "<|im_start|> $A"} | single, special_tokens=[("<|im_start|>", 1), ("<|endoftext|>", 0)]
    )
    return backend


@pytest.mark.parametrize("wants", [True, False])
@pytest.mark.parametrize("text", ["The answer", " is even", ""])
def test_the_bos_token_where_the_model_wants_one(tmp_path, wants, text):
    """As transformers does, which goes by the file and not by `add_bos_token`."""
    transformers = pytest.importorskip("transformers")
    write_folder(tmp_path, {"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>", "add_bos_token": not wants})
    if wants:
        with_bos().save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_pretrained_folder(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert ours.encode(text) == theirs(text)["input_ids"] == [1] * wants + ours.encode(text, continues=True)
    assert ours.encode(text, add_special_tokens=False) == theirs(text, add_special_tokens=False)["input_ids"]
    ours.save(tmp_path)
    assert Tokenizer.from_pretrained_folder(tmp_path).encode(text) == ours.encode(text)


def test_bos_stands_once_and_no_end_token_behind_a_prompt():
    tokenizer = Tokenizer(with_bos(single="<|im_start|> $A <|endoftext|>"), bos="<|im_start|>")
    ids = tokenizer.encode("even", continues=True)
    assert tokenizer.encode("even") == [1, *ids]
    assert tokenizer.encode("<|im_start|>even") == [1, *ids], "a chat format has written it already"
    assert tokenizer.encode("<think>")[0] == 1


def test_added_tokens_that_are_ordinary_text_are_not_special():
    backend = small_backend()
    backend.add_tokens(
        [AddedToken(text, special=False, normalized=False) for text in ("ü", "÷", "    ", "<tool_call>")]
    )
    tokenizer = Tokenizer(backend)
    assert list(tokenizer.special_tokens) == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    row = {"problem": "6÷2", "answer": "3", "content": "6÷2 = 3, so \\boxed{3}."}
    assert len(build_sft_examples([row], tokenizer)) == 1


def sentencepiece_backend(kind):
    """Words begin with a sign for the space, which is put before a text too: as Llama 2 has it, older and newer."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    if kind == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator(["Answer: It is even. It is the sum.\nAnswer: It is odd."] * 3, trainer)
    return backend


@pytest.mark.parametrize("kind", ["normalizer", "metaspace"])
def test_a_text_that_goes_on_gets_no_space_of_sentencepiece(kind):
    tokenizer = Tokenizer(sentencepiece_backend(kind), eos="</s>")
    prompt = tokenizer.encode("Answer:")
    for text in (" It is", "It is", "\nIt is"):
        assert tokenizer.decode([*prompt, *tokenizer.encode(text, continues=True)]) == "Answer:" + text
    example = make_example("P", "Answer:", " It is", tokenizer)
    assert tokenizer.decode(example.input_ids) == "Answer: It is"


def test_an_end_token_by_a_number_beyond_the_vocabulary(tmp_path):
    with pytest.raises(ValueError, match="'number 999' is not in the vocabulary"):
        Tokenizer.from_pretrained_folder(write_folder(tmp_path, config={"eos_token_id": 999}))
