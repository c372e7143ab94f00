"""Chapter 6's training with several seeds: `python -m benchmarks.grpo_seeds`.

A seed decides which problems are drawn and what is sampled. For each, the untrained and the trained model answer the
same held-out problems: greedy accuracy with Wilson's 95 % interval, McNemar's exact test of the difference, the share
of answers with full steps, and the seconds that training took. The control, with the prompt that begins the answer in
the style with full steps, tells how much of a gain is calculation and how much the choice of the style.
"""

import argparse
from dataclasses import replace

from shared import EvalResult, evaluate, load_minimath, load_model, render_prompt
from shared.grpo import GRPOConfig, GRPOTrainer, reward_correct

CHAPTER = GRPOConfig(
    steps=20, prompts_per_step=16, group_size=8, learning_rate=2e-4, max_new_tokens=160, micro_batch_tokens=1024
)  # section 6.12


def full_steps_prompt(problem: str) -> str:
    """The chain-of-thought prompt with the beginning of an answer in full steps."""
    return render_prompt(problem, "cot") + "\n"


def measure(model, tokenizer, problems: list[dict], style: str) -> dict[str, EvalResult]:
    """Greedy accuracy with the prompt that is trained, and with the one that begins the full steps."""
    prompts = {style: style, "control": full_steps_prompt}
    return {
        name: evaluate(model, tokenizer, problems, prompt=prompt, max_new_tokens=CHAPTER.max_new_tokens)
        for name, prompt in prompts.items()
    }


def train(config: GRPOConfig, name: str) -> GRPOTrainer:
    """Train a fresh model with a progress bar."""
    trainer = GRPOTrainer(*load_model(name), load_minimath("train"), reward_correct, config)
    trainer.train()
    return trainer


def described(result: EvalResult) -> str:
    """Accuracy, interval, tokens, and how many answers have full steps."""
    low, high = result.ci95
    full = sum(record["text"].startswith("\n") for record in result.records) / result.n
    return (
        f"{100 * result.accuracy:.1f} % ({100 * low:.1f} to {100 * high:.1f}), "
        f"{result.tokens / result.n:.1f} tokens, {100 * full:.0f} % full steps"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo_seeds", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny", help="a name or path that load_model knows")
    parser.add_argument("--prompt", default="cot", choices=("cot", "direct"), help="prompt to train with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=CHAPTER.steps)
    parser.add_argument("--problems", type=int, default=500, help="held-out problems")
    parser.add_argument("--learning-rate", type=float, default=CHAPTER.learning_rate)
    arguments = parser.parse_args()
    problems, style = load_minimath("test")[: arguments.problems], arguments.prompt
    before = measure(*load_model(arguments.model), problems, style)
    print(f"untrained, {style} prompt: {described(before[style])}")
    print(f"untrained, control:    {described(before['control'])}", flush=True)
    for seed in arguments.seeds:
        config = replace(
            CHAPTER, steps=arguments.steps, learning_rate=arguments.learning_rate, prompt_style=style, seed=seed
        )
        trainer = train(config, arguments.model)
        after = measure(trainer.model, trainer.tokenizer, problems, style)
        seconds = sum(row["seconds"] for row in trainer.history)
        print(f"seed {seed}: {described(after[style])}; {len(trainer.history)} steps in {seconds:.0f} s")
        print(f"  paired:  {after[style].compare(before[style])}")
        print(f"  control: {after['control'].compare(before['control'])}", flush=True)


if __name__ == "__main__":
    main()
