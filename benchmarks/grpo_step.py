"""A GRPO step of ours, of TRL, and of a loop without batches, side by side on the same tiny model.

    python -m benchmarks.grpo_step                       16 problems x 8 rollouts, two threads, some minutes
    python -m benchmarks.grpo_step --repeats 2 --no-unbatched

All start each repeat from the same weights, with the same prompts, group size, longest completion, temperature,
reward and fp32, and move too little to change how long the rollouts get. A step is sampling, reward, loss, gradient
and update; the first of each repeat warms up and is not counted. Repeats are interleaved, so that a busy neighbour
slows all alike; figures are medians, a ratio is the median of the ratios within the repeats.

TRL runs without gradient checkpointing and without bf16, both on by default and slower here, and again with one thread
where that is not given anyway. The loop without batches draws one rollout at a time, with a cache but with nothing
shared, and computes loss and gradient of one at a time. Its rollouts are what batching is for, so its target is one for
the sampling; the whole step is given as well. Ours leaves rollouts with advantage 0 out of the gradient, to which they
contribute nothing; the others compute them.
"""

import argparse
import copy
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.measuring import keep, machine, threads, verdict
from shared import export_hf, generate, load_minimath, load_model, render_prompt
from shared.grpo import GRPOConfig, GRPOTrainer, group_advantages, reward_correct
from shared.grpo.loss import grpo_loss
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM

OURS, TRL, TRL_ONE_THREAD, UNBATCHED = "ours", "TRL", "TRL, 1 thread", "unbatched loop"
TARGETS = {TRL: 3.0, TRL_ONE_THREAD: 3.0}
TARGET_SAMPLING = 8.0


@dataclass(frozen=True)
class Steps:
    """Some steps of one contestant: tokens that were sampled a rollout, seconds of each step, those of its sampling.

    The last is empty where it is not known.
    """

    length: float
    seconds: list[float]
    sampling: list[float]

    def without_first(self) -> "Steps":
        """Without the step that warmed up."""
        return replace(self, seconds=self.seconds[1:], sampling=self.sampling[1:])


@dataclass(frozen=True)
class Task:
    """What all are given."""

    model: CausalLM
    tokenizer: Tokenizer
    problems: list[dict]
    config: GRPOConfig  # its `steps` are those of a repeat, the first included

    @property
    def rollouts(self) -> int:
        """Rollouts a step."""
        return self.config.prompts_per_step * self.config.group_size


# --- ours -----------------------------------------------------------------------------------------------------


class TimedTrainer(GRPOTrainer):
    """The course's trainer, with the seconds of its sampling."""

    def collect(self):
        """Sample and score, as ever."""
        start = time.perf_counter()
        collected = super().collect()
        self.sampling = [*getattr(self, "sampling", []), time.perf_counter() - start]
        return collected


def ours(task: Task) -> Steps:
    """The course's trainer."""
    model = copy.deepcopy(task.model)
    trainer = TimedTrainer(model, task.tokenizer, task.problems, reward_correct, task.config, progress=False)
    history = trainer.train()
    length = statistics.mean(metrics["length_mean"] for metrics in history)
    return Steps(length, [metrics["seconds"] for metrics in history], trainer.sampling)


def unbatched(task: Task) -> Steps:
    """One rollout at a time, from sampling to gradient."""
    model, config = copy.deepcopy(task.model), task.config
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.0)
    seconds, sampling, lengths = [], [], []
    for step in range(config.steps):
        start = time.perf_counter()
        first = step * config.prompts_per_step
        rows = [sample_one(task, model, problem, config.group_size * step + i)
                for problem in task.problems[first : first + config.prompts_per_step]
                for i in range(config.group_size)]  # fmt: skip
        sampling.append(time.perf_counter() - start)
        rewards = torch.tensor([reward for *_, reward in rows]).view(-1, config.group_size)
        learn_one_by_one(model, rows, group_advantages(rewards).flatten(), config)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        lengths += [len(completion) for _, completion, _ in rows]
    return Steps(statistics.mean(lengths), seconds, sampling)


def sample_one(task: Task, model: CausalLM, problem: dict, seed: int) -> tuple[list[int], list[int], float]:
    """Token ids of a prompt and of one completion, and its reward."""
    prompt = render_prompt(problem["problem"], task.config.prompt_style)
    settings = {"max_new_tokens": task.config.max_new_tokens, "temperature": task.config.temperature}
    [completion] = generate(model, task.tokenizer, prompt, seed=seed, **settings)
    reward = reward_correct(completion.text, problem)
    return task.tokenizer.encode(prompt), completion.token_ids, reward


def learn_one_by_one(model: CausalLM, rows: list, advantages: torch.Tensor, config: GRPOConfig) -> None:
    """Add up the gradients of all rollouts, each from its own forward and backward pass."""
    totals = {"rollouts": len(rows), "tokens": sum(len(completion) for _, completion, _ in rows)}
    for (prompt, completion, _), advantage in zip(rows, advantages, strict=True):
        ids = torch.tensor([prompt + completion])
        logits = model(ids)[:, len(prompt) - 1 : -1] / config.temperature
        chosen = ids[:, len(prompt) :].unsqueeze(-1)
        logprobs = logits.log_softmax(dim=-1).gather(-1, chosen).squeeze(-1)
        mask = torch.ones_like(logprobs)
        loss, _ = grpo_loss(logprobs, logprobs.detach(), None, advantage.unsqueeze(0), mask, config, totals=totals)
        loss.backward()


# --- TRL ------------------------------------------------------------------------------------------------------


def step_clock():
    """A callback of transformers' trainers whose `seconds` are those of each step, up to the update."""
    import transformers

    class Clock(transformers.TrainerCallback):
        """Begins before the step's first micro-batch."""

        def __init__(self):
            self.seconds: list[float] = []

        def on_step_begin(self, *_, **__):
            self.start = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.seconds.append(time.perf_counter() - self.start)

    return Clock()


def trl_steps(task: Task, folder: Path) -> Steps:
    """TRL's trainer on the model that was exported to `folder`."""
    import datasets
    import transformers
    import trl

    clock, lengths = step_clock(), []

    def reward(completions, completion_ids, **columns) -> list[float]:
        lengths.extend(map(len, completion_ids))
        answers = ({"answer": answer} for answer in columns["answer"])
        return [reward_correct(text, problem) for text, problem in zip(completions, answers, strict=True)]

    style = task.config.prompt_style
    rows = [{"prompt": render_prompt(p["problem"], style), "answer": p["answer"]} for p in task.problems]
    trainer = trl.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder, padding_side="left"),
        reward_funcs=reward,
        args=trl.GRPOConfig(**trl_settings(task, folder)),
        train_dataset=datasets.Dataset.from_list(rows),
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return Steps(statistics.mean(lengths), clock.seconds, [])


TRL_PLAIN = {  # fp32 on the processor, a constant learning rate, and nothing written meanwhile
    "lr_scheduler_type": "constant",
    "shuffle_dataset": False,
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "report_to": [],
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


def trl_settings(task: Task, folder: Path) -> dict:
    """The same step in TRL's words."""
    config = task.config
    return TRL_PLAIN | {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": task.rollouts,
        "num_generations": config.group_size,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "top_k": 0,
        "beta": 0.0,
        "loss_type": "grpo",
        "learning_rate": config.learning_rate,
        "max_grad_norm": config.grad_clip,
        "max_steps": config.steps,
    }


@contextmanager
def quiet():
    """No warnings of other libraries meanwhile, and none of their bars."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- the comparison -------------------------------------------------------------------------------------------


def contestants(task: Task, folder: Path, with_unbatched: bool) -> dict[str, Callable[[], Steps]]:
    """Each way to take the steps."""
    export_hf(task.model, task.tokenizer, folder)

    def theirs_one_thread() -> Steps:
        with threads(1):
            return trl_steps(task, folder)

    runs = {OURS: lambda: ours(task), TRL: lambda: trl_steps(task, folder)}
    if torch.get_num_threads() > 1:
        runs[TRL_ONE_THREAD] = theirs_one_thread
    return runs | ({UNBATCHED: lambda: unbatched(shorter(task))} if with_unbatched else {})


def shorter(task: Task) -> Task:
    """Two steps are enough for what takes long."""
    return replace(task, config=replace(task.config, steps=2))


def measure(task: Task, repeats: int, with_unbatched: bool) -> dict[str, list[Steps]]:
    """The steps of every repeat by contestant, without the first step of each."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        return interleaved(contestants(task, Path(folder) / "model", with_unbatched), repeats)


def interleaved(runs: dict[str, Callable[[], Steps]], repeats: int) -> dict[str, list[Steps]]:
    """The steps of every repeat by contestant, without the first step of each; all have their turn in each repeat."""
    results: dict[str, list[Steps]] = {}
    for _ in tqdm(range(repeats), desc="repeats", leave=False):
        for who, run in runs.items():
            results.setdefault(who, []).append(run().without_first())
    return results


def ratio(who: str, results: dict[str, list[Steps]], what: str = "seconds") -> float:
    """How many times faster ours is, repeat against repeat."""
    pairs = zip(results[who], results[OURS], strict=True)
    return statistics.median(
        statistics.median(getattr(theirs, what)) / statistics.median(getattr(ours, what)) for theirs, ours in pairs
    )


def lines(who: str, results: dict[str, list[Steps]], targets: dict[str, float] = TARGETS) -> list[str]:
    """The lines of one contestant: the whole step and, where it is known, the sampling alone."""
    made = []
    for what, name, target in (("seconds", who, targets.get(who)), ("sampling", "", TARGET_SAMPLING)):
        seconds = [s for steps in results[who] for s in getattr(steps, what)]
        if seconds:
            length = f"{statistics.mean(steps.length for steps in results[who]):>10.1f}" if name else " " * 10
            compared = "" if who == OURS else verdict(ratio(who, results, what), target)
            part = "step" if name else "sampling"
            made.append(f"{name:<16}{part:<10}{statistics.median(seconds):>9.3f}{length}{compared}")
    return made


def rows(benchmark: str, results: dict[str, list[Steps]]) -> list[dict]:
    """A row for a file from each contestant: median seconds of a step, and how many times faster ours is."""
    return [
        {"benchmark": benchmark, "who": who, "ratio": round(ratio(who, results), 3)}
        | {"seconds": round(statistics.median(s for steps in runs for s in steps.seconds), 4)}
        for who, runs in results.items()
    ]


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="a repeat, the first of them not counted")
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--style", default="cot", choices=("direct", "cot"))
    parser.add_argument("--micro-batch-tokens", type=int, default=GRPOConfig().micro_batch_tokens, help="of ours")
    parser.add_argument("--no-unbatched", action="store_true")
    parser.add_argument("--out", type=Path, help="a file to append the rows to")
    arguments = parser.parse_args()
    config = GRPOConfig(
        steps=arguments.steps, max_new_tokens=arguments.max_new_tokens, prompt_style=arguments.style,
        learning_rate=1e-7, micro_batch_tokens=arguments.micro_batch_tokens,
    )  # fmt: skip
    task = Task(*load_model("tiny", device="cpu", dtype="float32"), load_minimath("train")[:256], config)
    print(f"{machine()}, trl {version('trl')}")
    print(
        f"{config.prompts_per_step} problems x {config.group_size} rollouts, at most {config.max_new_tokens} ", end=""
    )
    print(f"tokens, prompt {config.prompt_style!r}, fp32; medians of {arguments.repeats} interleaved repeats")
    print(f"{'':<26}{'seconds':>9}{'tokens':>10}{'ratio':>9}")
    results = measure(task, arguments.repeats, not arguments.no_unbatched)
    for who in results:
        print(*lines(who, results), sep="\n")
    keep(rows("grpo_step", results), arguments.out)


if __name__ == "__main__":
    main()
