"""The model: transformer, KV cache, tokenizer, adapters. Taught in ch02 and appendix C."""
