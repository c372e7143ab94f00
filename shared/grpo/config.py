"""The settings of GRPO and its variants: orthogonal switches, and presets that set them. Taught in ch06 and ch07.

    GRPOConfig()                                      GRPO with this course's defaults
    GRPOConfig(preset="dapo", steps=200)              what DAPO switches, for 200 steps
    GRPOConfig(preset="dapo", clip_high=0.2)          DAPO without its higher upper bound

A switch that is left at None takes the preset's value as soon as the object is made; for another preset make another
GRPOConfig, since `dataclasses.replace` keeps every switch as it stands. A preset takes over what its paper changes in
the algorithm, not its learning rate, its batch or its number of steps.
"""

from dataclasses import KW_ONLY, dataclass
from math import isfinite
from numbers import Real
from typing import ClassVar

from shared.training.config import AT_LEAST_ONE, NOT_NEGATIVE, NOW_AND_THEN, POSITIVE, TrainingConfig

# GRPO, DeepSeekMath, arXiv:2402.03300: advantage = (reward - group's mean) / group's standard deviation, PPO's clipped
# ratio of each token, mean over a rollout's tokens and then over rollouts. The paper has kl_coef 0.04 (k3), DeepSeek-R1
# (arXiv:2501.12948) 0.001; here, as in TRL, it is 0 unless asked for: an exact verifier leaves little to guard against.
SWITCHES = {
    "advantage": "grpo",
    "ratio": "token",
    "objective": "clip",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "aggregation": "sequence",
    "kl_coef": 0.0,
    "kl_estimator": "k3",
    "kl_reweighted": False,
    "tis_cap": 0.0,
    "off_policy_mask": 0.0,
    "keep_sampling_mask": False,
    "filter_zero_signal": False,
    "dynamic_sampling": False,
}

# What each preset changes in GRPO.
PRESETS: dict[str, dict] = {
    "grpo": {},
    # Dr. GRPO, arXiv:2503.20783: no division by the standard deviation, which favours questions that are nearly all
    # right or all wrong, nor by a rollout's own length, which favours long wrong answers.
    "dr_grpo": {"advantage": "dr_grpo", "aggregation": "constant"},
    # DAPO, arXiv:2503.14476: every token of the batch counts alike, rare tokens may rise further ("clip-higher"), and
    # prompts are drawn until the batch is full of groups with signal. Its length penalty is not in here.
    "dapo": {"aggregation": "token", "clip_high": 0.28, "filter_zero_signal": True, "dynamic_sampling": True},
    # TRL's loss type of this name: GRPO with the mean over the tokens of the batch (TRL: of each micro-batch).
    "bnpo": {"aggregation": "token"},
    # GSPO, arXiv:2507.18071: one ratio a rollout, the geometric mean of its tokens' ratios, and much narrower bounds.
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    # CISPO, MiniMax-M1, arXiv:2506.13585: the weight is capped and every token keeps its gradient. The paper sets no
    # lower bound (1 here) and does not publish the upper one; a weight of at most 5 is from ScaleRL, arXiv:2510.13786.
    "cispo": {"objective": "cispo", "clip_low": 1.0, "clip_high": 4.0, "aggregation": "token"},
    # Olmo 3, arXiv:2512.13961: Dr. GRPO's advantage with DAPO's loss and sampling, and truncated importance sampling.
    "olmo3": {"advantage": "dr_grpo", "aggregation": "token", "clip_high": 0.272, "tis_cap": 2.0,
              "filter_zero_signal": True, "dynamic_sampling": True},
    # DeepSeek-V3.2, arXiv:2512.02556: no division by the standard deviation; the KL term has an unbiased gradient;
    # wrong rollouts that the policy has moved away from are masked; top-p's choice is kept when training. The paper
    # gives neither the KL coefficient (0.001 is DeepSeek-R1's) nor the mask's threshold (0.5 is from TRL's manual).
    "deepseek_v32": {"advantage": "dr_grpo", "kl_coef": 0.001, "kl_reweighted": True, "off_policy_mask": 0.5,
                     "keep_sampling_mask": True},
    # GDPO, arXiv:2601.05242: with several rewards, each is normalised on its own before they are added.
    "gdpo": {"advantage": "gdpo"},
}  # fmt: skip


@dataclass(frozen=True)
class GRPOConfig(TrainingConfig):
    """How to train with GRPO. Taught in ch06, section 6.12; the switches in ch07, sections 7.3 to 7.12.

    The switches of the algorithm; None means what the preset says:

        preset              one of `PRESETS`; what it switches stands there, with its paper
        advantage           "grpo", "dr_grpo", "batch" or "gdpo", see `group_advantages`
        ratio               "token" or "sequence", see `policy_ratio`
        objective           "clip" (PPO's), "cispo" (capped weight), "plain" (ratio times advantage, no clip)
        clip_low, clip_high the ratio is kept in [1 - clip_low, 1 + clip_high]; clip_low = 1 is no lower bound
        aggregation         "sequence", "token" or "constant", see `aggregate`
        kl_coef             weight of the KL term to the reference model; 0 needs no reference model
        kl_estimator        "k1", "k2" or "k3", see `kl_estimate`
        kl_reweighted       KL term times the policy ratio, so that its gradient is unbiased at each position
        tis_cap             truncated importance sampling: weights of at most this; 0: off
        off_policy_mask     drop rollouts with a negative advantage that became less likely by more nats a token; 0: off
        keep_sampling_mask  log-probabilities are renormalised over the tokens that top-p and top-k left at sampling
        filter_zero_signal  groups with equal rewards are left out of the batch
        dynamic_sampling    prompts are drawn, at most `max_draws` times, until the batch is full of groups with signal

    `reward_weights` are one a reward; () means 1 each. A step takes `prompts_per_step` prompts with `group_size`
    rollouts each, and uses them `inner_epochs` times (the paper's mu). `top_k` 0 keeps all tokens. The reference model
    is renewed every `ref_every` steps; None never.

    Raises ValueError for an unknown preset or a value out of range.
    """

    preset: str = "grpo"
    _: KW_ONLY
    advantage: str | None = None
    ratio: str | None = None
    objective: str | None = None
    clip_low: float | None = None
    clip_high: float | None = None
    aggregation: str | None = None
    kl_coef: float | None = None
    kl_estimator: str | None = None
    kl_reweighted: bool | None = None
    tis_cap: float | None = None
    off_policy_mask: float | None = None
    keep_sampling_mask: bool | None = None
    filter_zero_signal: bool | None = None
    dynamic_sampling: bool | None = None
    max_draws: int = 4
    reward_weights: tuple[float, ...] = ()

    prompts_per_step: int = 16
    group_size: int = 8
    inner_epochs: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    ref_every: int | None = None

    choices: ClassVar = TrainingConfig.choices | {
        "preset": tuple(PRESETS),
        "advantage": ("grpo", "dr_grpo", "batch", "gdpo"),
        "ratio": ("token", "sequence"),
        "objective": ("clip", "cispo", "plain"),
        "aggregation": ("sequence", "token", "constant"),
        "kl_estimator": ("k1", "k2", "k3"),
    }
    rules: ClassVar = (
        (("group_size",), lambda n: n >= 2, "rollouts are compared within a group, so it takes at least 2"),
        *TrainingConfig.rules,
        (("prompts_per_step", "inner_epochs", "max_draws"), *AT_LEAST_ONE),
        (("clip_low", "clip_high", "kl_coef", "tis_cap", "off_policy_mask", "steps", "top_k"), *NOT_NEGATIVE),
        (("temperature",), *POSITIVE),
        (("ref_every",), *NOW_AND_THEN),
        (("top_p",), lambda value: 0 < value <= 1, "give a probability above 0 and up to 1"),
        (("reward_weights",), lambda ws: all(isinstance(w, Real) and isfinite(w) for w in ws), "give finite numbers"),
    )

    def __post_init__(self) -> None:
        if str(self.preset) not in PRESETS:
            raise ValueError(f"Unknown preset {self.preset!r}: choose one of {', '.join(PRESETS)}.")
        for name, value in (SWITCHES | PRESETS[self.preset]).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)  # the dataclass is frozen for everybody else
        super().__post_init__()
