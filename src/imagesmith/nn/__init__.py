"""Torch modules; each file reads alone and imports nothing but torch."""
