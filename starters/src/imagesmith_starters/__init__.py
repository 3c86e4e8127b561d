"""The models that ship with imagesmith: data only, found by folder name under `models/`."""
