"""What models are and where their bytes come from: catalogue, hub, folders, weights files."""
