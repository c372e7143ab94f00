"""Models on disk and on the hub: Hugging Face folders, GGUF files, checkpoints; `loading.py` is their face."""
