"""Tasks for lm-evaluation-harness: their prompts (YAML), data and metrics."""
