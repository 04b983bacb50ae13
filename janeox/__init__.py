"""Japanese GPT-NeoX: corpus, tokenizer, pre-training, evaluation and generation in one small package."""

__version__ = "0.1.0"
