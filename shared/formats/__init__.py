"""Models on disk and on the hub: Hugging Face folders, GGUF files, checkpoints. `shared.loading` is their face."""
