"""Where the time of `evaluate` goes: in the model and in sampling, or in what stands around them.

    python -m benchmarks.evaluate                        500 problems, two prompts
    python -m benchmarks.evaluate --quick                some seconds, no figures to keep

The tiny model answers MiniMath's test problems greedily, in one thread. The parts are timed where they are called, by
the processor's time, to which a busy neighbour does nothing. Inside are the model's forward passes and the choice of
tokens with their log-probabilities; outside is all that a perfect program could leave out: making prompts and token
ids of them, making texts of the tokens, grading, keeping the cache, and the rest, which is Python's bookkeeping.
Figures are medians of interleaved repeats.
"""

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.measuring import keep, machine, threads
from shared import CausalLM, Tokenizer, evaluate, load_minimath, load_model
from shared.evaluation import evaluator
from shared.generation import completions
from shared.model.transformer import KVCache

INSIDE, TARGET = ("forward passes", "sampling"), 0.1  # of the time may be outside
REST = "the rest"


def parts(model: CausalLM) -> dict[str, list[tuple[object, str]]]:
    """The functions of each part, by who holds them and their name; none of them calls another one of these."""
    return {
        "forward passes": [(model, "hidden_states"), (model.head, "forward")],
        "sampling": [(completions, "next_tokens"), (torch.Tensor, "log_softmax")],
        "prompts": [(evaluator, "render_prompt")],
        "token ids": [(Tokenizer, "encode")],
        "texts": [(Tokenizer, "decode")],
        "grading": [(evaluator, "extract_answer"), (evaluator, "grade")],
        "cache": [(KVCache, name) for name in ("__init__", "take", "select", "trim")],
    }


@contextmanager
def clocked(model: CausalLM) -> Iterator[Counter]:
    """The seconds of each part so far."""
    seconds: Counter[str] = Counter()

    def timed(part: str, function: Callable) -> Callable:
        def call(*arguments, **named):
            start = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                seconds[part] += time.process_time() - start

        return call

    with ExitStack() as stack:
        for part, functions in parts(model).items():
            for holder, name in functions:
                stack.enter_context(patch.object(holder, name, timed(part, getattr(holder, name))))
        yield seconds


def measure(model: CausalLM, tokenizer: Tokenizer, problems: list[dict], style: str, limit: int) -> Counter:
    """The seconds of each part of one evaluation."""
    with clocked(model) as seconds:
        start = time.process_time()
        evaluate(model, tokenizer, problems, prompt=style, max_new_tokens=limit)
        total = time.process_time() - start
    seconds[REST] = total - seconds.total()
    return seconds


def outside(seconds: dict[str, float]) -> float:
    """The share of the time that is spent outside the model and sampling."""
    return 1 - sum(seconds[part] for part in INSIDE) / sum(seconds.values())


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--styles", nargs="+", default=["direct", "cot"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="16 problems, one repeat")
    parser.add_argument("--out", type=Path, help="a file to append the rows to")
    arguments = parser.parse_args()
    count, repeats = (16, 1) if arguments.quick else (arguments.problems, arguments.repeats)
    model, tokenizer = load_model("tiny", device="cpu", dtype="float32")
    problems = load_minimath("test")[:count]
    runs: dict[str, list[Counter]] = {style: [] for style in arguments.styles}
    with threads(1):
        print(machine())
        for style in runs:
            measure(model, tokenizer, problems[:64], style, arguments.max_new_tokens)  # warms up
        for _ in range(repeats):
            for style, done in runs.items():
                done.append(measure(model, tokenizer, problems, style, arguments.max_new_tokens))
        print(f"{len(problems)} problems, tiny model, greedy; seconds, medians of {repeats} interleaved repeats")
        medians = {
            s: {p: statistics.median(r[p] for r in done) for p in [*parts(model), REST]} for s, done in runs.items()
        }
        print(table(medians))
        keep(
            [{"benchmark": "evaluate", "prompt": s, "outside": outside(m)} | m for s, m in medians.items()],
            arguments.out,
        )


def table(medians: dict[str, dict[str, float]]) -> str:
    """Seconds and share of every part, a column for each prompt; the last row is what lies outside."""
    lines = [f"{'':<16}" + "".join(f"{style:>18}" for style in medians)]
    for part in next(iter(medians.values())):
        shares = ((m[part], 100 * m[part] / sum(m.values())) for m in medians.values())
        lines.append(f"{part:<16}" + "".join(f"{seconds:>9.3f} {share:>6.1f} %" for seconds, share in shares))
    lines.append(f"{'outside':<16}" + "".join(f"{100 * outside(m):>16.1f} %" for m in medians.values()))
    met = "met" if max(map(outside, medians.values())) < TARGET else "missed"
    return "\n".join([*lines, f"target: below {100 * TARGET:.0f} % outside, {met}"])


if __name__ == "__main__":
    main()
