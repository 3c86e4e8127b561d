"""Engines run tensors: PyTorch, ONNX Runtime, OpenVINO; the pool opens, shares and evicts them."""
