"""Our `generate` and that of transformers, side by side on the same weights and prompts.

    python -m benchmarks.decode                          everything, some minutes
    python -m benchmarks.decode --models tiny --repeats 3

Greedy decoding of 128 new tokens in fp32 on the processor; end tokens do not end a text, so that every run is equally
long. Both must give the same tokens. Repeats are interleaved, so that a busy neighbour slows all alike; figures are
medians, and a ratio is the median of the ratios within the repeats. transformers runs with the threads that torch
takes by default and again with one, since that may be faster for a small model; the ratio is against the faster of
the two, which is named behind it. Ours chooses for itself. At batch 1 every weight is read once a token: the last
column compares that with how fast memory can be read at all.

[README.md](README.md) has the last figures, and what limits them.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.measuring import keep, machine, threads, verdict
from shared import export_hf, generate, load_minimath, load_model, render_prompt
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM

BATCHES = {"tiny": (1, 8, 64), "smollm2-135m": (1, 8)}
NEW_TOKENS = 128
OURS, THEIRS, THEIRS_ONE_THREAD = "ours", "transformers", "transformers, 1 thread"
TARGETS = {("tiny", 1): 2.0, ("tiny", 64): 2.0}  # times the faster peer
BANDWIDTH_TARGETS = {("smollm2-135m", 1): 0.6}  # share of the memory's speed


@dataclass(frozen=True)
class Result:
    """One line of the table: seconds of each repeat by contestant, and the memory's speed measured beside them."""

    model: str
    batch: int
    weight_bytes: int
    seconds: dict[str, list[float]]
    stream_bytes_per_second: float

    def tokens_per_second(self, who: str) -> float:
        """The median over the repeats."""
        return self.batch * NEW_TOKENS / statistics.median(self.seconds[who])

    def faster_peer(self) -> str:
        """Which setting of transformers took less time."""
        return min((THEIRS_ONE_THREAD, THEIRS), key=lambda who: statistics.median(self.seconds[who]))

    def ratio(self) -> float:
        """How many times faster ours is than the faster peer, repeat against repeat."""
        pairs = zip(self.seconds[self.faster_peer()], self.seconds[OURS], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    def bandwidth_share(self) -> float:
        """Weights read a second, as a share of what memory can deliver; of meaning at batch 1."""
        return self.tokens_per_second(OURS) / self.batch * self.weight_bytes / self.stream_bytes_per_second

    def line(self) -> str:
        """The line as text."""
        speeds = "".join(f"{self.tokens_per_second(who):>14,.1f}" for who in self.seconds)
        compared = verdict(self.ratio(), TARGETS.get((self.model, self.batch)))
        against = "1 thread" if self.faster_peer() == THEIRS_ONE_THREAD else "default threads"
        return f"{self.model:<13}{self.batch:>6}{speeds}{compared + ' of ' + against:<46}{self.bandwidth()}".rstrip()

    def bandwidth(self) -> str:
        """The last column."""
        if self.batch > 1:
            return ""
        share, target = self.bandwidth_share(), BANDWIDTH_TARGETS.get((self.model, self.batch))
        met = f" (target {100 * target:.0f} % {'met' if share >= target else 'missed'})" if target else ""
        return f"{100 * share:.0f} %{met}"

    def row(self) -> dict:
        """The line for a file."""
        speeds = {who: round(self.tokens_per_second(who), 1) for who in self.seconds}
        share = round(self.bandwidth_share(), 3) if self.batch == 1 else None
        compared = {"ratio": round(self.ratio(), 3), "against": self.faster_peer(), "of_bandwidth": share}
        return {"benchmark": "decode", "model": self.model, "batch": self.batch} | speeds | compared


def endless(tokenizer: Tokenizer) -> Tokenizer:
    """A copy for which no token ends a text."""
    tokenizer = copy.copy(tokenizer)
    tokenizer.stop_ids = ()
    return tokenizer


def load_peer(model: CausalLM, tokenizer: Tokenizer):
    """The same weights as a model of transformers."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        export_hf(model, tokenizer, Path(folder) / "model")
        peer = transformers.AutoModelForCausalLM.from_pretrained(Path(folder) / "model", dtype=torch.float32).eval()
    peer.generation_config.eos_token_id = None
    peer.generation_config.pad_token_id = tokenizer.pad_id
    return peer


def peer_generate(peer, tokenizer: Tokenizer, prompts: list[str]) -> list[list[int]]:
    """New tokens of transformers' own generate, with padding on the left."""
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    longest = max(map(len, encoded))
    ids = torch.tensor([[tokenizer.pad_id] * (longest - len(each)) + each for each in encoded])
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in encoded])
    made = peer.generate(ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False)
    return made[:, longest:].tolist()


def contestants(name: str) -> tuple[dict[str, Callable[[list[str]], list[list[int]]]], int]:
    """Each way to turn prompts into new tokens, and how many bytes the weights are."""
    model, tokenizer = load_model(name, device="cpu", dtype="float32")
    peer, tokenizer = load_peer(model, tokenizer), endless(tokenizer)

    def ours(prompts: list[str]) -> list[list[int]]:
        return [c.token_ids for c in generate(model, tokenizer, prompts, max_new_tokens=NEW_TOKENS)]

    def theirs(prompts: list[str]) -> list[list[int]]:
        return peer_generate(peer, tokenizer, prompts)

    def theirs_one_thread(prompts: list[str]) -> list[list[int]]:
        with threads(1):
            return theirs(prompts)

    size = sum(p.numel() * p.element_size() for p in model.parameters())
    return {OURS: ours, THEIRS: theirs, THEIRS_ONE_THREAD: theirs_one_thread}, size


def stream_speed(block: torch.Tensor) -> float:
    """Bytes a second of summing a block that no cache can hold."""
    start = time.perf_counter()
    block.sum()
    return block.numel() * block.element_size() / (time.perf_counter() - start)


def measure(name: str, batches: tuple[int, ...], repeats: int) -> list[Result]:
    """All batch sizes of one model."""
    runs, size = contestants(name)
    prompts = [render_prompt(problem["problem"], "cot") for problem in load_minimath("test")]
    block = torch.ones(2**27)
    results = []
    for batch in batches:
        chosen = prompts[:batch]
        check_equal({who: run(chosen) for who, run in runs.items()}, name, batch)  # this warms up, too
        seconds: dict[str, list[float]] = {who: [] for who in runs}
        streams = []
        for _ in tqdm(range(repeats), desc=f"{name}, batch {batch}", leave=False):
            streams.append(stream_speed(block))
            for who, run in runs.items():
                start = time.perf_counter()
                run(chosen)
                seconds[who].append(time.perf_counter() - start)
        results.append(Result(name, batch, size, seconds, statistics.median(streams)))
    return results


def check_equal(outputs: dict[str, list[list[int]]], name: str, batch: int) -> None:
    """All must have made the same tokens, and all of them."""
    for who, rows in outputs.items():
        assert all(len(row) == NEW_TOKENS for row in rows), f"{who} stopped early ({name}, batch {batch})"
        different = [i for i, row in enumerate(rows) if row != outputs[OURS][i]]
        assert not different, f"{who} made other tokens than ours in rows {different} ({name}, batch {batch})"


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--batches", nargs="+", type=int, help="instead of those listed for the model")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a file to append the rows to")
    arguments = parser.parse_args()
    print(machine())
    print(f"{NEW_TOKENS} new tokens, greedy, fp32; tokens a second, medians of {arguments.repeats} interleaved repeats")
    print(f"{'model':<13}{'batch':>6}{OURS:>14}{THEIRS:>14}{'... 1 thread':>14}", end="")
    print(f"{'   ratio to the faster of the two':<46}of bandwidth")
    for name in arguments.models:
        batches = tuple(arguments.batches or BATCHES[name])
        for result in measure(name, batches, arguments.repeats):
            print(result.line(), flush=True)
            keep([result.row()], arguments.out)
            if result.batch == 1:
                speed = result.stream_bytes_per_second
                print(f"  {result.weight_bytes / 1e6:.1f} MB of weights; memory {speed / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
