"""A chat model is asked through its chat format wherever the course asks a model; a base model in plain text."""

from __future__ import annotations

import functools
import warnings

import pytest

from shared import evaluate, generate, load_minimath, load_model, render_prompt, self_refine
from shared.distillation.examples import build_sft_examples
from shared.generation import completions
from shared.generation.prompts import render_revision_prompt
from shared.grpo import GRPOConfig, reward_format
from shared.grpo.rollouts import sample_rollouts
from shared.inference.refinement import answer_logprob_scorer, problem_of
from shared.inference.scorers import as_completions, avg_logprob_score
from shared.model.tokenizer import CHATML_TEMPLATE, PLAIN, Tokenizer
from shared.support.jsonl import read_jsonl
from shared.teacher.local import ask_model

# How the three families end a turn, in short: Qwen, Llama 3 and the models with Llama 2's format.
LLAMA3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
SWITCH = "{% if add_generation_prompt and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
PROBLEMS = load_minimath("test")[:3]


MODEL, TINY = load_model("tiny-random")


def chat_tokenizer(template: str = CHATML_TEMPLATE) -> Tokenizer:
    return Tokenizer(TINY.backend, eos="<|im_end|>", pad="<|endoftext|>", chat_template=template)


def base_tokenizer() -> Tokenizer:
    """Of a base model that has a template all the same, as Qwen3's have."""
    return Tokenizer(TINY.backend, chat_template=CHATML_TEMPLATE)


# --- which form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [CHATML_TEMPLATE, LLAMA3, LLAMA2, CHATML_TEMPLATE + "<think>\n"])
def test_a_model_whose_turns_end_with_its_end_token_is_a_chat_model(template):
    assert chat_tokenizer(template).is_chat


def test_a_base_model_is_none_with_or_without_a_template_or_with_one_that_fails():
    assert not base_tokenizer().is_chat
    assert not Tokenizer(TINY.backend).is_chat
    assert not chat_tokenizer("{{ raise_exception('no') }}").is_chat


@pytest.mark.parametrize("name", ["tiny", "tiny-teacher"])
def test_the_models_of_the_course_are_base_models(name):
    assert not load_model(name)[1].is_chat


def test_the_form_can_be_set():
    tokenizer = base_tokenizer()
    tokenizer.is_chat = True
    assert render_prompt("1+1?", "cot", tokenizer).startswith("<|im_start|>user\n")


def test_a_base_model_is_asked_in_plain_text():
    for style in ("direct", "cot", "think"):
        assert render_prompt("1+1?", style, base_tokenizer()) == render_prompt("1+1?", style)
    assert render_revision_prompt("1+1?", " 3", base_tokenizer()) == render_revision_prompt("1+1?", " 3")


@pytest.mark.parametrize("template", [CHATML_TEMPLATE, LLAMA3, LLAMA2])
@pytest.mark.parametrize("style", ["direct", "cot", "think"])
def test_the_question_of_a_chat_model_is_one_turn_and_can_be_read_out_again(template, style):
    tokenizer = chat_tokenizer(template)
    prompt = render_prompt(" What is 1+1? ", style, tokenizer)
    question = render_prompt("What is 1+1?", style).removesuffix("\nAnswer:")
    assert prompt == tokenizer.apply_chat_template([{"role": "user", "content": question}])
    assert problem_of(prompt) == "What is 1+1?"


def test_thinking_is_switched_on_by_the_style_think_alone():
    tokenizer = chat_tokenizer(CHATML_TEMPLATE + SWITCH)
    closed = {style: render_prompt("1?", style, tokenizer).endswith("</think>\n\n") for style in ("cot", "think")}
    assert closed == {"cot": True, "think": False}


def test_a_revision_is_asked_in_the_turn_after_the_draft():
    prompt = render_revision_prompt("What is 1+1?", "\nIt is 3.", chat_tokenizer())
    turns = prompt.split("<|im_start|>")
    assert [turn.split("\n")[0] for turn in turns[1:]] == ["user", "assistant", "user", "assistant"]
    assert "It is 3.<|im_end|>" in turns[2]
    assert turns[3].startswith("user\nCheck the draft")


# --- everywhere -----------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """The prompts that reach the model."""
    seen, real = [], completions.make_rows

    def noted(model, tokenizer, texts, *rest):
        seen.extend(texts)
        return real(model, tokenizer, texts, *rest)

    monkeypatch.setattr(completions, "make_rows", noted)
    return seen


def in_chat_form(prompts: list[str]) -> bool:
    return bool(prompts) and all(p.startswith("<|im_start|>user\n") for p in prompts)


@pytest.mark.parametrize("chat", [True, False])
def test_evaluation_votes_and_refinement_ask_in_the_form_of_the_model(asked, chat):
    model, tokenizer = MODEL, chat_tokenizer() if chat else base_tokenizer()
    refine = functools.partial(self_refine, scorer=answer_logprob_scorer(model, tokenizer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in ("greedy", refine):
            evaluate(model, tokenizer, PROBLEMS, prompt="cot", method=method, max_new_tokens=2)
    assert len(asked) > len(PROBLEMS)
    assert in_chat_form(asked) == chat


@pytest.mark.parametrize("chat", [True, False])
def test_rollouts_examples_and_the_local_teacher_ask_in_the_form_of_the_model(asked, tmp_path, chat):
    model, tokenizer = MODEL, chat_tokenizer() if chat else base_tokenizer()
    config = GRPOConfig(group_size=2, max_new_tokens=2)
    sample_rollouts(model, tokenizer, PROBLEMS, [lambda text, problem: 0.0], config, seed=0)
    ask_model(PROBLEMS, tmp_path / "s.jsonl", model, tokenizer, name="small", max_new_tokens=2)
    assert in_chat_form(asked) == chat
    row = {"problem": "1+1?", "answer": "2", "content": "It is \\boxed{2}.", "thinking": "", "finish_reason": "stop"}
    [example] = build_sft_examples([row], tokenizer)
    assert in_chat_form([example.prompt]) == chat
    assert example.prompt == render_prompt("1+1?", "cot", tokenizer)


def test_student_and_teacher_are_asked_each_in_its_own_form(asked, tmp_path):
    """A base model may learn from a chat model: the teacher's template is no part of the student's examples."""
    path = tmp_path / "s.jsonl"
    ask_model(PROBLEMS, path, MODEL, chat_tokenizer(), name="chat", max_new_tokens=2, keep_rejected=True)
    assert in_chat_form(asked)
    rows = read_jsonl(path.with_suffix(".rejected.jsonl"))
    right = {"content": "\\boxed{1}", "answer": "1", "correct": True, "finish_reason": "stop"}
    rows = [row | right for row in rows]
    for tokenizer, chat in ((base_tokenizer(), False), (chat_tokenizer(), True)):
        examples = build_sft_examples(rows, tokenizer)
        assert len(examples) == len(PROBLEMS)
        assert in_chat_form([example.prompt for example in examples]) == chat
        assert all(example.input_ids[-1] == tokenizer.eos_id for example in examples)


def test_a_chat_model_that_is_asked_plainly_is_told_of():
    model, tokenizer = MODEL, chat_tokenizer()
    with pytest.warns(UserWarning, match="asked in plain text"):
        generate(model, tokenizer, render_prompt("1+1?"), max_new_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(model, tokenizer, render_prompt("1+1?", "cot", tokenizer), max_new_tokens=1)
        generate(model, base_tokenizer(), render_prompt("1+1?"), max_new_tokens=1)
        tokenizer.is_chat = False
        generate(model, tokenizer, render_prompt("1+1?"), max_new_tokens=1)
    assert "render_prompt(problem, style, tokenizer)" in PLAIN


def test_thinking_that_the_format_opens_counts_as_opened_for_the_reward():
    model, texts = MODEL, []
    tokenizer = chat_tokenizer(CHATML_TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}")
    config = GRPOConfig(group_size=2, max_new_tokens=2)
    noted = lambda text, problem: float(texts.append(text) or 0.0)  # noqa: E731
    rollouts = sample_rollouts(model, tokenizer, PROBLEMS[:1], [noted], config, seed=0)
    assert texts == ["<think>" + row.completion.text for row in rollouts.rows]
    assert reward_format("<think>" + "1+1=2\n</think>\n\\boxed{2}", PROBLEMS[0]) == 1.0


def test_the_scorer_of_answers_asks_a_chat_model_in_its_form():
    tokenizer = chat_tokenizer()
    score = answer_logprob_scorer(MODEL, tokenizer)
    prompt = render_prompt("1+1?", "cot", tokenizer)
    drawn = as_completions(MODEL, tokenizer, [prompt], ["It is \\boxed{2}."])[0]
    direct = render_prompt("1+1?", "direct", tokenizer)
    [boxed] = as_completions(MODEL, tokenizer, [direct], ["\\boxed{2}"])
    assert score(prompt, drawn) == pytest.approx(avg_logprob_score(direct, boxed))
