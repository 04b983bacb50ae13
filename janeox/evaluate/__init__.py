"""Evaluation: perplexity, bits per byte, benchmarks, comparisons."""
