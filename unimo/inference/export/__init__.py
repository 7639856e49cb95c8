"""Export of models as programs that run without this library, and as plain weights.

graphs.py     what is exported of a model: encoders, fusion with its head, steps of a decoder
programs.py   Paddle's inference programs and ONNX: written, and run
run.py        the folder, written whole, after exported and live outputs were compared
"""

FORMATS = ("paddle-inference", "onnx", "safetensors")
TOLERANCE = 1e-4
"""Largest difference of exported and live outputs, as a share of the largest output (at least of 1)."""
