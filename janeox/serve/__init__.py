"""The server: OpenAI's endpoints and a page over one engine."""
