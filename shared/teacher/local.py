"""A model of ours as the teacher, its answers in a file. Used by ch08."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from shared.distillation.examples import sft_prompt
from shared.generation.completions import generate
from shared.generation.sampling import plain_seed
from shared.model.fingerprint import fingerprint
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.progress import progress_bar
from shared.support.values import ensure_at_least_one
from shared.teacher.replies import make_reply
from shared.teacher.samples import Job, SamplesFile, Tally, ensure_sampling, unified_problems


def ask_model(
    problems: Sequence[dict],
    path: Path | str,
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    name: str,
    prompt: str | Callable[[str], str] = "cot",
    num_samples: int = 1,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_new_tokens: int = 2048,
    seed: int = 0,
    batch_size: int = 64,
    keep_rejected: bool = False,
    progress: bool = False,
) -> Tally:
    """Let a model of ours solve problems and append what the verifier accepts to a file, batch by batch.

    A call that was stopped goes on where it was; with one seed the batches change the samples by rounding at most.

    Args:
        problems: dicts with at least `problem` and `answer`, such as `load_minimath` gives.
        path, keep_rejected: see `SamplesFile`.
        name: what stands in the rows' field `model`.
        prompt: a style of `render_prompt`, or a function from a problem's text to a prompt.
        num_samples: answers a problem; raise it later to get more of them.
        batch_size: how many answers are made at once.

    Raises ValueError for settings out of range, problems without the fields, or a file that does not fit.
    """
    problems = unified_problems(problems)
    ensure_sampling(num_samples, temperature, top_p, max_new_tokens)
    ensure_at_least_one(batch_size=batch_size)
    limits = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    sampling = limits | {"seed": plain_seed(seed)}
    render = partial(sft_prompt, tokenizer=tokenizer, prompt_style=prompt)
    settings = {"model": name, "weights": fingerprint(model), "prompt": render("Compute 1+1.")}
    with SamplesFile(path, settings | sampling, problems, keep_rejected) as file:
        tally, jobs = file.tally(num_samples), file.jobs(num_samples)
        total = len(problems) * num_samples
        with progress_bar(total, unit="sample", shown=progress, done=total - len(jobs)) as bar:
            for batch in _batches(jobs, batch_size):
                prompts = [render(problem["problem"]) for problem, _ in batch]
                drawn = {"first_sample": batch[0][1], "batch_size": batch_size}
                made = generate(model, tokenizer, prompts, **drawn, **sampling)
                for job, text, each in zip(batch, prompts, made, strict=True):
                    reply = make_reply(each, len(tokenizer.encode(text)))
                    tally.count(reply, file.add(job, reply))
                bar.update(len(batch))
                bar.set_postfix(tally.short())
    return tally


def _batches(jobs: list[Job], size: int) -> Iterator[list[Job]]:
    """Jobs with the same number of a sample, at most `size` at once."""
    for _, same in groupby(sorted(jobs, key=itemgetter(1)), key=itemgetter(1)):
        same = list(same)
        yield from (same[start : start + size] for start in range(0, len(same), size))
