"""Chapter 6's training, gone on with for 500 steps, and its controls: `python -m benchmarks.grpo_base`.

The run begins as the chapter's own does: same settings, same seed. Along the way the policy answers problems that are
used for nothing else; beside it stand the untrained model with every prompt of `benchmarks.base`, the best of which is
P*, and the control for style, a run that is paid for as many steps as a problem takes, right or wrong. pass@k tells
what 32 samples hold before and after. Everything goes into `ch06/long_run.jsonl`, one measurement a line; what is there
already is not measured again, and a run that is stopped goes on from its last checkpoint.

    python -m benchmarks.grpo_base --ship      also writes the last policy to shared/assets
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.base import Study, all_prompts, passes, prompts_and_beginnings, show
from shared import extract_answer, load_minimath, load_model
from shared.assets import ASSETS
from shared.formats.weights import save_weights_file
from shared.grpo import GRPOConfig, GRPOTrainer, reward_correct
from shared.inference.scorers import written_steps
from shared.support.files import atomic_file
from shared.tiny.corpus import generate_minimath

RESULTS = Path(__file__).resolve().parents[1] / "ch06" / "long_run.jsonl"
SEED = 20_711  # of the problems to measure with
CONFIG = GRPOConfig(
    steps=500,
    prompts_per_step=16,
    group_size=8,
    learning_rate=2e-4,
    max_new_tokens=160,
    micro_batch_tokens=1024,
    save_every=10,
)  # section 6.12
MEASURED = (10, 25, 50, 75, 100, 125, 150, 200, 250, 300, 350, 400, 450, 500)  # steps after which the policy is asked
CONTROL = 150  # steps of the control
CURVES = ("reward_mean", "length_mean", "no_signal", "entropy", "grad_norm", "seconds")


def reward_steps(text: str, problem: dict) -> float:
    """1 for as many steps as the problem takes, right or wrong, less the more it has too few or too many.

    A text without an answer gets nothing: paid for steps alone, a policy soon writes on until it is cut off.
    """
    if extract_answer(text) is None:
        return 0.0
    return max(0.0, 1 - abs(len(written_steps(text)) / problem["level"] - 1))


REWARDS = {"correct": reward_correct, "steps": reward_steps}


def trained(model: str, reward: str, config: GRPOConfig) -> GRPOTrainer:
    """The run in `config.out` after `config.steps` steps, begun or gone on with."""
    trainer = GRPOTrainer(*load_model(model), load_minimath("train"), REWARDS[reward], config)
    trainer.train()
    return trainer


def history(trainer: GRPOTrainer) -> dict:
    """Settings and curves of a run."""
    settings = asdict(trainer.config) | {"out": None}
    return {"settings": settings, "weights": trainer.start, "curves": {
        key: [float(f"{row[key]:.4g}") if key in row else None for row in trainer.history] for key in CURVES
    }}  # fmt: skip


def measured_run(study: Study, model: str, reward: str, config: GRPOConfig, best: dict) -> GRPOTrainer:
    """Train, and ask the policy after each of the numbers of steps in `MEASURED`, and after the last one."""
    for steps in (*(s for s in MEASURED if s < config.steps), config.steps):
        name = f"{reward}, {steps} steps, cot"
        if name not in study.rows or steps == config.steps:
            trainer = trained(model, reward, replace(config, steps=steps))
            study.model = trainer.model
            study.greedy(name, all_prompts()["cot"])
        show(study.rows[name], ("P*", best))
    study.part(f"{reward}, history", lambda: history(trainer))
    return trainer


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo_base", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny", help="a name or path that load_model knows")
    parser.add_argument("-n", "--problems", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the measurements")
    parser.add_argument("--runs", type=Path, default=Path("runs/grpo_base"), help="folder of the checkpoints")
    parser.add_argument("--run-seed", type=int, default=CONFIG.seed, help="of the training; another needs other files")
    parser.add_argument("--only", nargs="+", choices=["prompts", *REWARDS, "passes"], default=None, help="some parts")
    parser.add_argument(
        "--ship", action="store_true", help="write the last policy to shared/assets/tiny-grpo.safetensors"
    )
    parser.add_argument("--threads", type=int, default=1, help="processor cores to use")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wanted = options.only or ["prompts", *REWARDS, "passes"]
    study = Study(*load_model(options.model), generate_minimath(options.problems, SEED), options.out)
    untrained = study.model
    best = prompts_and_beginnings(study)
    config = replace(CONFIG, steps=options.steps, seed=options.run_seed, out=str(options.runs / "correct"))
    if "correct" in wanted or "passes" in wanted:
        policy = measured_run(study, options.model, "correct", config, best)
        for style in ("direct", "think"):
            show(study.greedy(f"correct, {config.steps} steps, {style}", all_prompts()[style]), ("P*", best))
        if options.ship:
            with atomic_file(ASSETS / "tiny-grpo.safetensors") as temporary:
                save_weights_file(temporary, policy.model.to(torch.bfloat16))
    if "passes" in wanted:
        passes(study, name=f"correct, {config.steps} steps")
        study.model = untrained
        passes(study, name="untrained")
    if "steps" in wanted:
        control = replace(config, steps=min(CONTROL, options.steps), out=str(options.runs / "steps"))
        measured_run(study, options.model, "steps", control, best)


if __name__ == "__main__":
    main()
