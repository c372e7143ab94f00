"""Plausible wrong answers to the quiz of ch01."""

WRONG = {
    "1.1": ["a", "b", {"c", "d"}],
    "1.2": ["acdb", "cadb", ["c", "a", "d", "b"]],
    "1.3": ["a", "abc", "b"],
    "1.4": ["a", "abd", "bc"],
    "1.5": [0.8, 0.9, 1.7, 0.85],
    "1.6": ["fly", "crawl"],
    "1.7": ["a", "b", "none"],
    "1.8": [("unknown", "no"), ("no", "no"), ("yes", "unknown")],
    "1.9": [84, 5.04e10, 1.152e11],
    "1.10": [{"direct": 6, "steps": 90}, {"direct": 1.8, "steps": 81}, {"direct": 100, "steps": 20}],
}
