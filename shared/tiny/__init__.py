"""How the tiny model came to be: its problems, its corpus and its pre-training."""
