"""A student for other tools: as an ONNX graph, in eight bits where asked, checked against PyTorch on real rows."""
