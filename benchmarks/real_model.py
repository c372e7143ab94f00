"""What a real chat model does on GSM8K, asked in the ways of chapters 3 to 5.

    python -m benchmarks.real_model --model FILE.gguf --gsm8k FOLDER

`--gsm8k` is a folder with GSM8K's own test.jsonl; 200 of its problems are drawn once. Every answer is kept, a line of a
JSON Lines file for each way of asking, in `benchmarks/recordings`, and a run that was stopped goes on where it was. The
figures are computed from these files alone: `python -m benchmarks.real_model --show`.
"""

import argparse
import random
from functools import partial
from pathlib import Path

import torch

from shared import Answer, Completion, EvalResult, evaluate, extract_answer, generate, grade, load_gsm8k, load_model
from shared.evaluation.statistics import paired_test
from shared.inference.scorers import avg_logprob_score, choose_best, vote_weights
from shared.inference.votes import answers_of, chosen_answer, draw_samples, pass_at_k, vote

RECORDINGS = Path(__file__).resolve().parent / "recordings"
SEED, N, POOL_N, SAMPLES, LIMIT = 0, 200, 100, 8, 400
BUDGETS = (0, 16, 32, 64, 128)
BRIEF = "Solve it in as few words as you can, a short line for each step, then answer in \\boxed{}."
CRITIQUE = "Check this solution. Is each step right? Say what is wrong, in a few sentences, or that all is right."
REVISION = "With this criticism in mind, write the solution again, then answer in \\boxed{}."


def chat(tokenizer, *turns: str) -> str:
    """Turns of user and assistant, alternating, in the model's own format, with room for the next answer."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return tokenizer.apply_chat_template(messages)


def two_prompts(model, tokenizer, prompts, *, max_new_tokens, seed):
    """A draft, a criticism of it, and a revision with the criticism: three answers, the last one counts."""
    questions = [prompt_text(prompt, tokenizer) for prompt in prompts]
    limit = {"max_new_tokens": max_new_tokens}
    drafts = generate(model, tokenizer, prompts, **limit)
    asked = [chat(tokenizer, q, d.text, CRITIQUE) for q, d in zip(questions, drafts, strict=True)]
    critics = generate(model, tokenizer, asked, **limit)
    turns = zip(questions, drafts, critics, strict=True)
    asked = [chat(tokenizer, q, d.text, CRITIQUE, c.text, REVISION) for q, d, c in turns]
    revised = generate(model, tokenizer, asked, **limit)
    written = zip(drafts, critics, revised, strict=True)
    return [chosen_answer(texts, 2, {"texts": [text.text for text in texts]}) for texts in written]


def prompt_text(prompt: str, tokenizer) -> str:
    """The user's turn in a prompt of one turn."""
    before, after = chat(tokenizer, "\0").split("\0")
    return prompt.removeprefix(before).removesuffix(after)


def with_budget(model, tokenizer, prompts, *, max_new_tokens, seed, budget):
    """A chain of thought, cut after so many tokens; then the box is opened and the model has to answer."""
    thoughts = generate(model, tokenizer, prompts, max_new_tokens=budget) if budget else [None] * len(prompts)
    begun = [thought.text if thought else "" for thought in thoughts]
    ended = [thought is not None and thought.finish_reason == "stop" for thought in thoughts]
    asked = [p + text + "\n\nThe answer is \\boxed{" for p, text in zip(prompts, begun, strict=True)]
    boxes = generate(model, tokenizer, asked, max_new_tokens=16)
    answers = []
    for thought, text, stopped, box in zip(thoughts, begun, ended, boxes, strict=True):
        whole = text if stopped and extract_answer(text) else f"{text}\n\nThe answer is \\boxed{{{box.text}"
        used = len(thought.token_ids) if thought else 0
        answers.append(Answer(whole, extract_answer(whole), used + len(box.token_ids), {"cut": not stopped}))
    return answers


def pool(model, tokenizer, prompts, *, max_new_tokens, seed):
    """Eight samples; the vote is the answer, and all that scorers need is kept."""
    groups = draw_samples(
        model, tokenizer, prompts, num_samples=SAMPLES, temperature=0.7, max_new_tokens=max_new_tokens, seed=seed
    )
    answers = []
    for samples in groups:
        answers.append(vote(samples))
        scores = [round(avg_logprob_score("", sample), 5) for sample in samples]
        answers[-1].details.update(texts=[sample.text for sample in samples], scores=scores)
    return answers


PARTS = {  # name -> problems, settings of `evaluate`
    "direct": (N, {"prompt": "direct"}),
    "cot": (N, {"prompt": "cot"}),
    **{f"budget {k}": (N, {"prompt": "cot", "method": partial(with_budget, budget=k)}) for k in BUDGETS},
    "brief": (N, {"prompt": BRIEF}),
    "refined": (N, {"prompt": "cot", "method": two_prompts}),
    "pool of 8": (POOL_N, {"prompt": "cot", "method": pool}),
}


def file_of(name: str, out: Path) -> Path:
    """Where the answers of a part are kept."""
    return out / f"gsm8k-{name.replace(' ', '-')}.jsonl"


def measure(model_path: Path, gsm8k: Path, out: Path, parts: list[str], dtype: str) -> None:
    """Ask whatever has not been asked yet."""
    problems = random.Random(SEED).sample(load_gsm8k("test", gsm8k / "test.jsonl"), N)
    model, tokenizer = load_model(model_path, dtype=dtype)
    for name in parts:
        count, settings = PARTS[name]
        if settings["prompt"] == BRIEF:
            settings = settings | {"prompt": lambda text: chat(tokenizer, f"Problem: {text}\n{BRIEF}")}
        file = file_of(name, out)
        batch = 32 if "pool" not in name else 4
        common = {"max_new_tokens": LIMIT, "seed": SEED, "batch_size": batch, "progress": True, "results": file}
        print(name, evaluate(model, tokenizer, problems[:count], **settings, **common), flush=True)


def show(out: Path) -> None:
    """The figures, from the recorded answers."""
    results = {}
    for name in PARTS:
        file = file_of(name, out)
        if file.exists():
            results[name] = EvalResult.from_jsonl(file)
            print(f"{name:12} {results[name]}")
            if name not in ("direct", "cot", "pool of 8") and "cot" in results:
                print(f"{'':12} against cot: {results[name].compare(results['cot'])}")
    if "pool of 8" in results:
        for name, value in choices(results["pool of 8"].records).items():
            print(f"{name:20} {value}")


def choices(records: list[dict]) -> dict[str, str]:
    """Ways to choose among the pool's samples, each against the first sample; pass@k."""
    right, chosen = [], {"one sample": [], "vote": [], "weighted vote": [], "best by log-prob": []}
    for record in records:
        answers, scores = record["details"]["answers"], record["details"]["scores"]
        marks = [a is not None and grade(a, record["answer"]) for a in answers]
        right.append(marks)
        samples = [Completion(text, [], [], "stop") for text in record["details"]["texts"]]
        assert answers_of(samples) == answers
        weighted = vote(samples, vote_weights(scores, 8.0))
        best = choose_best(samples, scores)
        chosen["one sample"].append(marks[0])
        for name, answer in {"vote": vote(samples), "weighted vote": weighted, "best by log-prob": best}.items():
            chosen[name].append(answer.answer is not None and grade(answer.answer, record["answer"]))
    told = {
        name: f"{100 * sum(marks) / len(marks):.1f} %; against one sample: {paired_test(marks, chosen['one sample'])}"
        for name, marks in chosen.items()
    }
    for k in (1, 2, 4, 8):
        share = sum(pass_at_k(len(marks), sum(marks), k) for marks in right) / len(right)
        told[f"pass@{k}"] = f"{100 * share:.1f} %"
    return told


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_model", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, help="a .gguf file or a Hugging Face folder of a chat model")
    parser.add_argument("--gsm8k", type=Path, help="folder with GSM8K's test.jsonl")
    parser.add_argument("--name", default="qwen2.5-coder-0.5b-instruct-q4", help="folder of the recordings")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--show", action="store_true", help="print the figures of what is recorded, and end")
    options = parser.parse_args()
    out = RECORDINGS / options.name
    if not options.show:
        torch.set_num_threads(options.threads)
        out.mkdir(parents=True, exist_ok=True)
        measure(options.model, options.gsm8k, out, options.parts, options.dtype)
    show(out)


if __name__ == "__main__":
    main()
