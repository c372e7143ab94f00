"""What every other folder uses: files, progress, values. Nothing here is about language models."""
