"""Raw text → clean documents: read, clean, drop duplicates, split. Nothing here imports torch."""
