"""Largest sizes of what is read. Whatever exceeds one is refused by name before memory is taken for it.

They lie far above what public data sets and models have: they are there for damaged files, for files that
were made to do harm, and for a device or pipe given in place of a file.
"""

from __future__ import annotations

import os

MIB, GIB = 1 << 20, 1 << 30

IMAGE_BYTES = 512 * MIB
"""An encoded image; 89 million pixels of 16 bits without compression just exceed it."""
LINE_BYTES = 128 * MIB
"""A line of jsonl, TSV or text, and a text or JSON member of a tar shard; regions of an image take 2 MiB."""
JSON_BYTES = 2 * GIB
"""A JSON file as a whole; the annotations of Visual Genome take 0.5 GiB."""
JSON_DEPTH = 64
"""Lists and objects inside each other."""
FOLDER_DEPTH = 100
"""Folders inside each other that pictures are searched in."""
JSON_GROUPS = 30_000_000
"""Brackets and braces of a JSON text: one byte each, and 64 or more in memory."""
CONFIG_BYTES = 64 * MIB
"""A file of names, words or digests, one a line."""
YAML_BYTES = 16 * MIB
"""A YAML file, of which a second reads 2 MB; a model directory lists its classes there."""
CONFIG_NODES = 500_000
"""Values of a YAML file, each alias counted as often as it is used; a second reads 30,000."""
CONFIG_DEPTH = 32
"""Mappings and lists of a YAML file, or names of an override, inside each other."""
CONFIG_FILES = 100
"""Files that a config is merged from."""
MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
"""Memory of this machine."""
WEIGHTS_BYTES = min(64 * GIB, MEMORY_BYTES)
"""A file of weights, optimizer state or region features."""
PICKLE_BYTES = 4 * GIB
"""A pickle of arrays, which lies in memory twice while it is read; CIFAR has 30 MiB a file."""
TORCH_PICKLE_BYTES = 64 * MIB
"""The description of the tensors in a file of torch; a large one has 1 MiB."""
PICKLE_STEPS = 2_000_000
"""Steps of a pickle of arrays; CIFAR-100 takes 250,000. One step is one byte, and may make 64 in memory."""
TENSORS = 100_000
"""Tensors in a file of weights; large public models have thousands, and a header has room for millions."""
TAR_HEADER_BYTES = MIB
"""A long name or the pax records of a tar member."""
TABLE_TEXT_BYTES = 8 * GIB
"""All columns of an Arrow file but the images."""
UNPACKED_BYTES, UNPACKED_RATIO = 256 * MIB, 16
"""Compressed buffers of an Arrow file may unpack to the first, plus the second times the size of the file."""
ANSWERS = 250_000
"""Classes of answers of VQA; VQA v2 has 3,129."""
VOCABULARY = 10_000_000
"""Entries of a vocabulary."""
MODEL_WIDTH = 1_000_000
"""Any width, number of layers, positions or classes in the config of a model."""
MODEL_PARAMETERS = MEMORY_BYTES // 4
"""Parameters of float32 that a config may ask for."""
CLASSES = MODEL_PARAMETERS // (5 * 2048)
"""Classes or attributes of a detector, each with a score and four corrections of a box."""
ANSWER_BYTES = 16 * MIB
"""The answer of a translator, and of a parser about a caption."""
COUNTS_BYTES = min(16 * GIB, MEMORY_BYTES)
"""Arrays of counts of augmentation (`.npz`)."""
LOG_BYTES = GIB
"""A file of metrics, of which an hour of training writes some kilobytes."""
LOG_END_BYTES = 16 * MIB
"""The end of the log of a rank, in which errors stand."""
