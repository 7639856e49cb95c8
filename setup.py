"""Packaging of `unimo`. The Paddle build is chosen by an extra: `.[cpu]` or `.[gpu]`.

Paddle is not in `install_requires`, because the CPU wheel would be laid over an installed GPU wheel: both own
the same `paddle/` folder. paddlenlp and paddleclas, whose weights the extra `zoo` opens, hold back Python
(< 3.12) and NumPy (1.24); nothing else needs them. `constraints.txt` pins the versions that were tested
together with them, `constraints-lean.txt` those without.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """The version that `unimo/__init__.py` states, read without importing the package."""
    for line in (ROOT / "unimo" / "__init__.py").read_text(encoding="utf8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("unimo/__init__.py states no __version__")


REQUIRED = [
    "visualdl>=2.5.3,<3",
    "numpy>=1.24.4,<3",
    "pyyaml>=6",
    "safetensors>=0.4",
    "tokenizers>=0.19",
    "pyarrow>=19",
    "pillow>=10.1",  # whose own font has sizes, for pictures of regions
    "tqdm>=4.60",
    "huggingface_hub>=0.30",  # weights by name; paddlenlp needs an older one than others
    "pooch>=1.8",  # weights at plain addresses
    "requests>=2.28",  # whose errors pooch lets through
    "filelock>=3.12",  # several processes that fetch the same weights
    "protobuf>=3.20.2",  # parameters of Paddle 1.x
    "matplotlib>=3.7",
    "scipy>=1.10",  # relative positions, correlations of GLUE
    "scikit-learn>=1.2",
    "nltk>=3.8",  # stems of words; textblob has it too
    "textblob>=0.19",  # its tagger, whose lexicon lies inside the wheel: phrases, and rewriting of captions
    "setuptools",  # `import paddle` needs it, and declares it for Python 3.12 only
]

EXTRAS = {
    "cpu": ["paddlepaddle>=3.3.1,<3.4"],
    "gpu": ["paddlepaddle-gpu>=3.3.1,<3.4"],  # from Paddle's own index; see docs/guides/install.md
    "zoo": [  # weights of PaddleNLP and PaddleClas; Python 3.10 and 3.11
        "paddlenlp>=2.8.1,<3",
        "paddleclas>=2.6.0,<2.7",  # pins numpy==1.24.4, which has no wheel for Python 3.12
        # Without these a fresh installation resolves, passes `pip check`, and fails to import.
        "huggingface_hub<1",  # paddlenlp imports a function that 1.0 removed
        "aistudio-sdk<0.3",  # paddlenlp imports a function that 0.3 removed
        "pyarrow>=19,<26",  # 26 refuses NumPy 1 at import and does not say so in its metadata
        "protobuf>=3.20.2,<7",  # paddlenlp's trainer reports booleans to visualdl, which 7 refuses
    ],
    "caption": [
        "pycocoevalcap>=1.2"
    ],  # METEOR and the COCO tokenizer, if Java is there; SPICE needs CoreNLP too
    "generation": ["rouge-score>=0.1.2"],  # ROUGE of summaries (task.metrics=[rouge])
    "search": ["faiss-cpu>=1.8"],  # an index of many images
    "augment": ["ctranslate2>=4.5", "sentencepiece>=0.2"],  # back-translation by models of the user's own
    "spacy": ["spacy>=3.7"],  # phrases and scene graphs by a pipeline of the user's own
    # tools/export.py --format onnx. paddle2onnx needs an onnxoptimizer that has no wheel for Python 3.12.
    "export": [
        "paddle2onnx>=2.1,<2.2; python_version < '3.12'",
        "onnx>=1.16; python_version < '3.12'",
        "onnxruntime>=1.20; python_version < '3.12'",
    ],
    "detector": ["pycocotools>=2.0.7"],  # COCO's metric, after training the region detector
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.6",  # two workers in scripts/test.sh
        "ruff>=0.6",
        "pycocoevalcap>=1.2",
        "pycocotools>=2.0.7",
        "rouge-score>=0.1.2",
        "ctranslate2>=4.5",
        "faiss-cpu>=1.8",
        "sentencepiece>=0.2",
    ],
    # In an environment of its own: the other side of tools/benchmark.py, and what made tests/assets.
    "peers": ["torch>=2.4", "torchvision>=0.19", "transformers>=4.44"],
}
EXTRAS["test"] += EXTRAS["export"]
EXTRAS["mutants"] = [
    "cosmic-ray>=8.7",
    "parso>=0.8",
    "toml>=0.10",
    *EXTRAS["test"],
]  # tests/support/mutants.py
EXTRAS["dev"] = [*EXTRAS["test"], "pre-commit>=3.5"]

setup(
    name="unimo",
    version=read_version(),
    description="The UNIMO family on PaddlePaddle: pre-train, fine-tune, evaluate, predict",
    long_description=(ROOT / "README.md").read_text(encoding="utf8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["unimo", "unimo.*", "ppdet_features"]),
    package_data={
        "unimo": ["**/README.md", "**/*.json", "weights/cards/*.yaml"],
        "ppdet_features": ["README.md", "configs/*.yaml"],
    },
    python_requires=">=3.10,<3.14",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
