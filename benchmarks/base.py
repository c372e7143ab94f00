"""What the tiny base model can do, and by which path: `python -m benchmarks.base`.

On fresh held-out problems: both prompts, both styles of derivation forced, samples, votes, the best of several by
average log-probability, and checks of drafts with their controls. Prints accuracies with Wilson's 95 % interval.
"""

import argparse
import random
from collections import Counter

from shared import CausalLM, Completion, Tokenizer, extract_answer, generate, grade, load_model, render_prompt
from shared.evaluation.statistics import wilson_interval
from shared.generation.prompts import render_revision_prompt
from shared.tiny.corpus import generate_minimath

LIMIT = 200  # new tokens


class Study:
    """A model and the problems it is asked."""

    def __init__(self, model: CausalLM, tokenizer: Tokenizer, problems: list[dict]):
        self.model, self.tokenizer, self.problems = model, tokenizer, problems

    def write(self, prompts: list[str], **settings) -> list:
        """Completions of one prompt for each problem."""
        return generate(self.model, self.tokenizer, prompts, max_new_tokens=LIMIT, **settings)

    def right(self, texts: list[str]) -> list[bool]:
        """Whether each problem's text has the right answer."""
        return [grade(extract_answer(t) or "", p["answer"]) for t, p in zip(texts, self.problems, strict=True)]

    def report(self, name: str, right: list[bool], remark: str = "") -> None:
        """Print one line: accuracy and interval."""
        low, high = wilson_interval(sum(right), len(right))
        share = sum(right) / len(right)
        print(f"{name:44} {100 * share:5.1f} % ({100 * low:.1f} to {100 * high:.1f})  {remark}", flush=True)


def paths(study: Study) -> None:
    """Greedy decoding after both prompts, and with the style of the derivation forced by its first token."""
    direct = [render_prompt(p["problem"], "direct") for p in study.problems]
    asked = [render_prompt(p["problem"], "cot") for p in study.problems]
    study.report("direct prompt, greedy", study.right([c.text for c in study.write(direct)]))
    greedy = [c.text for c in study.write(asked)]
    right = study.right(greedy)
    full = [text.startswith("\n") for text in greedy]
    solved = {kind: [r for r, f in zip(right, full, strict=True) if f == kind] for kind in (True, False)}
    by_style = ", ".join(
        f"{name}: {sum(solved[kind])} of {len(solved[kind])}" for name, kind in (("full steps", True), ("hasty", False))
    )
    study.report("chain-of-thought prompt, greedy", right, by_style)
    for name, start in (("made to write full steps", "\n"), ("made to be hasty", " We get")):
        forced = study.write([prompt + start for prompt in asked])
        study.report(name, study.right([c.text for c in forced]))


def votes(study: Study, temperature: float, count: int = 8) -> None:
    """One sample, the majority, the best by average log-probability, and any of `count` samples."""
    asked = [render_prompt(p["problem"], "cot") for p in study.problems]
    samples = study.write(asked, temperature=temperature, num_samples=count, seed=1)
    name = f"of {count} samples at temperature {temperature}"
    study.report(f"the first {name}", study.right([row[0].text for row in samples]))
    study.report(f"majority {name}", study.right([majority(row) for row in samples]))
    best = [max(row, key=lambda c: sum(c.logprobs) / len(c.logprobs)).text for row in samples]
    study.report(f"likeliest {name}", study.right(best))
    each = [study.right([row[i].text for row in samples]) for i in range(count)]
    study.report(f"any {name}", [any(column) for column in zip(*each, strict=True)])


def majority(samples: list[Completion]) -> str:
    """A text with the commonest answer of the samples; chapter 4 does this with equivalent answers."""
    answers = Counter(extract_answer(c.text) for c in samples)
    del answers[None]
    return f"\\boxed{{{answers.most_common(1)[0][0]}}}" if answers else ""


def checks(study: Study) -> None:
    """Checks of drafts: the model's own, and as controls a random number and the reference solution."""
    asked = [render_prompt(p["problem"], "cot") for p in study.problems]
    rng = random.Random(0)
    drafts = {
        "own greedy draft": [c.text for c in study.write(asked)],
        "own draft at temperature 1": [c.text for c in study.write(asked, temperature=1.0, seed=5)],
        "random number": [f" \\boxed{{{rng.randint(-50, 99)}}}" for _ in asked],
        "reference solution": ["\n" + p["solution"] for p in study.problems],
    }
    for name, texts in drafts.items():
        prompts = [render_revision_prompt(p["problem"], t) for p, t in zip(study.problems, texts, strict=True)]
        before, after = study.right(texts), study.right([c.text for c in study.write(prompts)])
        pairs = Counter(zip(before, after, strict=True))
        remark = f"draft right: {sum(before)}, mended {pairs[False, True]}, broken {pairs[True, False]}"
        study.report(f"after checking: {name}", after, remark)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.base", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny", help="a name or path that load_model knows")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--seed", type=int, default=321, help="of the problems")
    arguments = parser.parse_args()
    study = Study(*load_model(arguments.model), generate_minimath(arguments.problems, arguments.seed))
    print(f"{arguments.model}, {arguments.problems} problems of MiniMath drawn with seed {arguments.seed}")
    paths(study)
    for temperature in (0.7, 1.0):
        votes(study, temperature)
    checks(study)


if __name__ == "__main__":
    main()
