"""Models for other engines: exported, compared with PyTorch, and cached."""
