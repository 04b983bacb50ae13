"""Token shards: written once, memory-mapped, and cut into batches."""
