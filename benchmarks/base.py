"""What the tiny base model can do before any training: `python -m benchmarks.base --model PATH --seed N -n 1000`.

On fresh held-out problems: greedy accuracy with every prompt and beginning of the course, the best of which is called
P* (whatever a training claims has to be more than that); how many of the steps are written down; votes and the best of
several samples with paired tests; pass@k. Each result is a line of a JSON Lines file, written as soon as it is there,
and is not measured again when the command is repeated.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch

from shared import CausalLM, Completion, Tokenizer, extract_answer, generate, grade, load_minimath, load_model
from shared.evaluation.statistics import paired_test, wilson_interval
from shared.generation.prompts import BOX, render_prompt, render_revision_prompt
from shared.inference.scorers import avg_logprob_score, choose_best, vote_weights, written_steps
from shared.inference.votes import pass_at_k, vote
from shared.model.fingerprint import fingerprint
from shared.support.jsonl import append_jsonl, read_jsonl
from shared.tiny.corpus import LEVELS, generate_minimath

LIMIT = 200  # new tokens
BEGINNINGS = {"": "", ", line begun": "\n", ", tag begun": "\n<think>\n"}
WORDINGS = {
    "every single step": f"Write down every single step and leave none out, then answer in {BOX}.",
    "work carefully": f"Work slowly and carefully, one step a line, then answer in {BOX}.",
    "no instruction": "",
}
POWERS = (1, 2, 4, 8, 16, 32)  # k of pass@k
same = lru_cache(maxsize=None)(grade)


class Study:
    """A model, the problems it is asked, and the file that keeps what came out."""

    def __init__(self, model: CausalLM, tokenizer: Tokenizer, problems: list[dict], out: Path):
        self.model, self.tokenizer, self.problems, self.out = model, tokenizer, problems, out
        self.key = f"{fingerprint(model)} {len(problems)} {problems[0]['unique_id']}"
        rows = read_jsonl(out) if out.exists() else []
        self.rows = {row["part"]: row for row in rows if row["key"] == self.key}

    def part(self, name: str, measure: Callable[[], dict]) -> dict:
        """The row of this name: from the file, or measured now and appended to it."""
        if name not in self.rows:
            self.rows[name] = {"part": name, "key": self.key, **measure()}
            append_jsonl(self.out, [self.rows[name]])
        return self.rows[name]

    def write(self, prompts: list[str], **settings) -> list:
        """Completions of one prompt for each problem."""
        return generate(self.model, self.tokenizer, prompts, max_new_tokens=LIMIT, **settings)

    def right(self, texts: Sequence[str]) -> list[bool]:
        """Whether each problem's text has the right answer."""
        return [same(extract_answer(t) or "", p["answer"]) for t, p in zip(texts, self.problems, strict=True)]

    def summary(self, texts: Sequence[str], tokens: Sequence[int]) -> dict:
        """Tokens a problem, and of each problem its level, whether it was solved, and how many steps were written."""
        return {
            "tokens": round(sum(tokens) / len(texts), 2),
            "levels": "".join(str(p["level"]) for p in self.problems),
            "right": "".join("01"[r] for r in self.right(texts)),
            "steps": "".join(str(min(9, len(written_steps(text)))) for text in texts),
        }

    def greedy(self, name: str, prompt: Callable[[str], str]) -> dict:
        """Greedy decoding after one prompt."""

        def measure() -> dict:
            done = self.write([prompt(p["problem"]) for p in self.problems])
            return self.summary([c.text for c in done], [len(c.token_ids) for c in done])

        return show(self.part(name, measure))

    def check(self, style: str) -> dict:
        """Greedy decoding after the prompt that asks to check the greedy draft of a style."""
        name, drafts = f"check of its {style} draft", {}
        if name not in self.rows:
            texts = (c.text for c in self.write([render_prompt(p["problem"], style) for p in self.problems]))
            drafts = dict(zip((p["problem"] for p in self.problems), texts, strict=True))
        return self.greedy(name, lambda text: render_revision_prompt(text, drafts[text]))


def accuracy(row: dict) -> float:
    """Share of the problems that a row solves."""
    return row["right"].count("1") / len(row["right"])


def by_level(row: dict) -> dict[int, float]:
    """The same for each level."""
    pairs = list(zip(map(int, row["levels"]), row["right"], strict=True))
    found = {level: [r == "1" for v, r in pairs if v == level] for level in LEVELS}
    return {level: sum(rows) / len(rows) for level, rows in found.items() if rows}


def share_written(row: dict) -> float:
    """Steps that were written down for each step that the problems take."""
    return sum(map(int, row["steps"])) / sum(map(int, row["levels"]))


def show(row: dict, *others: tuple[str, dict]) -> dict:
    """Print a row: accuracy, interval, levels, tokens, steps, and the paired tests against others."""
    low, high = wilson_interval(row["right"].count("1"), len(row["right"]))
    levels = " ".join(f"{100 * share:3.0f}" for share in by_level(row).values())
    print(
        f"{row['part']:34} {100 * accuracy(row):5.1f} % ({100 * low:.1f} to {100 * high:.1f})  levels {levels}"
        f"  {row['tokens']:.0f} tokens, {share_written(row):.2f} of the steps",
        flush=True,
    )
    for name, other in others:
        print(f"    against {name}: {paired_test(*(list(map(int, r['right'])) for r in (row, other)))}")
    return row


# --- prompts ------------------------------------------------------------------------------------------------


def all_prompts(seed: int = 0) -> dict[str, Callable[[str], str]]:
    """Every way of asking: the course's prompts and beginnings, other wordings, worked examples, the chat form."""
    made = {
        style + name: lambda text, style=style, begun=begun: render_prompt(text, style) + begun
        for style in ("direct", "cot", "think") for name, begun in BEGINNINGS.items()
    }  # fmt: skip
    for name, instruction in WORDINGS.items():
        made[name] = lambda text, line=instruction: f"Problem: {text}\n{line}\nAnswer:"
    made["think step by step"] = lambda text: render_prompt(text, "cot") + " Let's think step by step.\n"
    made["chat"] = lambda text: f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant"
    for count in (1, 2):
        made[f"worked examples: {count}"] = lambda text, count=count: with_examples(text, count, seed)
    return made


def with_examples(text: str, count: int, seed: int) -> str:
    """The question behind full solutions of some problems of the training set, drawn by it."""
    chosen = random.Random(f"{seed}-{text}").sample(hard_examples(), count)
    shown = [render_prompt(p["problem"], "cot") + "\n" + p["solution"] for p in chosen]
    return "\n\n".join([*shown, render_prompt(text, "cot")])


@lru_cache
def hard_examples() -> list[dict]:
    """Problems of the training set that take four or five steps."""
    return [p for p in load_minimath("train") if p["level"] >= 4]


def prompts_and_beginnings(study: Study) -> dict:
    """Greedy accuracy of every way of asking, and of the check of a draft; returns the best row, P*."""
    rows = [study.greedy(name, prompt) for name, prompt in all_prompts().items()]
    rows += [study.check(style) for style in ("cot", "direct")]
    best = max(rows, key=accuracy)
    show(best | {"part": f"P* = {best['part']}"})
    return best


# --- samples ------------------------------------------------------------------------------------------------


def votes(study: Study, name: str, best: dict, temperature: float = 0.7) -> None:
    """Votes and choices among samples of one prompt, against greedy decoding with it and against P*."""
    parts = {f"{kind} of {count}, {name}": (kind, count) for kind, count in CASES}
    samples = []
    if not parts.keys() <= study.rows.keys():
        prompts = [all_prompts()[name](p["problem"]) for p in study.problems]
        samples = study.write(prompts, temperature=temperature, num_samples=16, seed=1)
    for part, (kind, count) in parts.items():

        def measure(kind=kind, count=count) -> dict:
            chosen = [CHOICES[kind](row[:count]) for row in samples]
            return study.summary([a.text for a in chosen], [a.tokens for a in chosen])

        show(study.part(part, measure), ("greedy", study.rows[name]), ("P*", best))


def _scores(samples: Sequence[Completion]) -> list[float]:
    return [avg_logprob_score("", sample) for sample in samples]


CHOICES = {
    "vote": vote,
    "weighted vote": lambda samples: vote(samples, vote_weights(_scores(samples), 8.0)),
    "likeliest": lambda samples: choose_best(samples, _scores(samples)),
}
CASES = [("vote", 1), *((kind, count) for count in (8, 16) for kind in CHOICES)]


def passes(study: Study, name: str = "untrained", count: int = 300) -> dict:
    """How many of 32 samples (chain of thought, T = 1) solve each of the first problems, and how many write all."""

    def measure() -> dict:
        problems, right, full = study.problems[:count], [], []
        prompts = [all_prompts()["cot"](p["problem"]) for p in problems]
        samples = study.write(prompts, temperature=1.0, num_samples=max(POWERS), seed=2)
        for row, problem in zip(samples, problems, strict=True):
            right.append(sum(same(extract_answer(c.text) or "", problem["answer"]) for c in row))
            full.append(sum(len(written_steps(c.text)) >= problem["level"] for c in row))
        return {"samples": max(POWERS), "right": right, "full": full, "levels": [p["level"] for p in problems]}

    row = study.part(f"pass@k, {name}", measure)
    rates = {k: sum(pass_at_k(row["samples"], c, k) for c in row["right"]) / len(row["right"]) for k in POWERS}
    print(row["part"], " ".join(f"{k}: {100 * share:.1f}" for k, share in rates.items()), flush=True)
    return row


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.base", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny", help="a name or path that load_model knows")
    parser.add_argument("-n", "--problems", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=321, help="of the problems; used for nothing else")
    parser.add_argument("--out", type=Path, default=Path("results/base.jsonl"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="processor cores to use")
    parser.add_argument("--parts", nargs="+", default=["votes", "passes"], choices=["prompts", "votes", "passes"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    problems = generate_minimath(arguments.problems, arguments.seed)
    study = Study(*load_model(arguments.model), problems, arguments.out)
    print(f"{arguments.model}, {arguments.problems} problems of MiniMath drawn with seed {arguments.seed}")
    best = prompts_and_beginnings(study)
    if "votes" in arguments.parts:
        for name in dict.fromkeys(("cot", best["part"])):
            if name in all_prompts():  # and not a check of a draft
                votes(study, name, best)
    if "passes" in arguments.parts:
        passes(study)


if __name__ == "__main__":
    main()
