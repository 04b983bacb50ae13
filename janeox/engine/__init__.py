"""Generation: sampling, batching, streaming and stopping, over any backend."""
