"""What several samples of a problem cost beside one: `python -m benchmarks.sampling`.

8 samples for each of 100 problems against 1 sample for each, in interleaved repeats; and what the pieces save. The
same 8 samples are drawn once more with each sample's prompt computed by itself (no shared prefill), and once more
sample by sample, problem by problem on a few of the problems (no batch). Figures are medians; a ratio is the median
of the ratios within the repeats. The project asks for less than 6 times.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from benchmarks.measuring import machine
from shared import CausalLM, Tokenizer, generate, load_minimath, load_model, render_prompt
from shared.inference.votes import draw_samples

SETTINGS = {"temperature": 0.7, "max_new_tokens": 200, "seed": 0}
UNBATCHED = 5  # problems for the run without batches, which is slow


def repeated_seconds(seconds: Callable[[int], float], counts: Sequence[int], repeats: int) -> dict[int, list[float]]:
    """The seconds of every repeat for each number of samples; interleaved, so that a busy neighbour slows all alike."""
    times: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            times[count].append(seconds(count))
    return times


class Bench:
    """A model, its prompts, and several ways to sample from it."""

    def __init__(self, model: CausalLM, tokenizer: Tokenizer, prompts: list[str]):
        self.model, self.tokenizer, self.prompts = model, tokenizer, prompts

    def together(self, count: int) -> float:
        """Seconds for `count` samples of every prompt, as the course draws them."""
        start = time.perf_counter()
        draw_samples(self.model, self.tokenizer, self.prompts, num_samples=count, **SETTINGS)
        return time.perf_counter() - start

    def prefill(self, count: int) -> float:
        """Seconds for the prompts and one token of each sample."""
        start = time.perf_counter()
        settings = SETTINGS | {"max_new_tokens": 1}
        draw_samples(self.model, self.tokenizer, self.prompts, num_samples=count, **settings)
        return time.perf_counter() - start

    def prefill_of_each_sample(self, count: int) -> float:
        """The same where each sample computes its prompt by itself: one call for each number of a sample."""
        start = time.perf_counter()
        for number in range(count):
            settings = SETTINGS | {"max_new_tokens": 1, "first_sample": number}
            generate(self.model, self.tokenizer, self.prompts, **settings)
        return time.perf_counter() - start

    def one_by_one(self, count: int) -> float:
        """Seconds without batches, scaled from the first problems to all."""
        start = time.perf_counter()
        for prompt in self.prompts[:UNBATCHED]:
            for number in range(count):
                generate(self.model, self.tokenizer, prompt, first_sample=number, **SETTINGS)
        return (time.perf_counter() - start) * len(self.prompts) / UNBATCHED


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny", help="a name or path that load_model knows")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    problems = load_minimath("test")[: arguments.problems]
    bench = Bench(*load_model(arguments.model), [render_prompt(p["problem"], "cot") for p in problems])
    bench.together(1)  # warms up
    print(machine())
    print(f"{arguments.model}, {len(problems)} problems, chain-of-thought prompt, temperature 0.7")
    counts = sorted({1, *arguments.samples})
    times = repeated_seconds(bench.together, counts, arguments.repeats)
    for count in counts:
        ratio = statistics.median(t / one for t, one in zip(times[count], times[1], strict=True))
        print(f"{count:3} samples each: {statistics.median(times[count]):7.2f} s, {ratio:5.2f} times one sample")
    pieces = {
        "prompts and 1 token, shared prefill": bench.prefill,
        "prompts and 1 token, a prefill for each sample": bench.prefill_of_each_sample,
        "all tokens, one completion at a time (estimate)": bench.one_by_one,
    }
    for name, seconds in pieces.items():
        [measured] = repeated_seconds(seconds, [8], 1 if seconds == bench.one_by_one else arguments.repeats).values()
        print(f"  8 samples, {name:48} {statistics.median(measured):7.2f} s")


if __name__ == "__main__":
    main()
