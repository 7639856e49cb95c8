"""Ask a fine-tuned model about a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.errors import ConfigError

if TYPE_CHECKING:
    from unimo.inference.pipeline import Pipeline, Ranked

DESCRIPTION = """Ask a fine-tuned model about a picture.
VQA models take questions, entailment and retrieval models sentences (--text). Prints the best answers
with their probabilities."""
EXAMPLE = (
    'python tools/predict.py --model output/unimo3_tiny_vqa --image p.png --question "what color is it?"'
)


def main() -> None:
    """Read the command line, ask, print."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    parser.add_argument("--model", required=True, help="model directory or run folder")
    parser.add_argument("--image", required=True, help="image file")
    parser.add_argument("--question", action="append", default=[], help="may be given several times")
    parser.add_argument("--text", action="append", default=[], help="sentence; may be given several times")
    parser.add_argument("--top-k", type=int, default=5, help="answers to print for each question")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--save", default="", metavar="PNG", help="draw the picture with its answers")
    options = parser.parse_intermixed_args()
    asked = options.question or options.text
    if bool(options.question) == bool(options.text):
        raise ConfigError('give either --question "..." (VQA) or --text "..." (entailment, retrieval)')
    if options.top_k < 1:
        raise ConfigError(f"--top-k {options.top_k}: expected at least 1")

    from unimo.inference.pipeline import Pipeline

    pipeline = Pipeline(options.model)
    ask = judge if options.text else answer
    answers = {text: ask(pipeline, options.image, text, options.top_k) for text in asked}
    if options.save:
        from unimo.inference.picture import draw_answers

        Path(options.save).parent.mkdir(parents=True, exist_ok=True)
        draw_answers(options.image, answers).save(options.save, format="PNG")
    if options.json:
        print(json.dumps({"image": options.image, "answers": {text: rows(answers[text]) for text in asked}}))
    else:
        print("\n".join(lines(answers)))


def answer(pipeline: Pipeline, image: str, question: str, top_k: int) -> Ranked:
    """Answers of a VQA model."""
    return pipeline.answer(image, question, top_k)


def judge(pipeline: Pipeline, image: str, text: str, top_k: int) -> Ranked:
    """Verdict of an entailment model, or the match probability of a retrieval model."""
    if pipeline.task.config.name == "retrieval":
        return [("match", pipeline.match(image, text))]
    return pipeline.entail(image, text)[:top_k]


def rows(ranked: Ranked) -> list[dict[str, str | float]]:
    """Answers as JSON objects."""
    return [{"answer": name, "probability": round(probability, 6)} for name, probability in ranked]


def lines(answers: dict[str, Ranked]) -> list[str]:
    """Aligned text: each question, then its answers with their probabilities."""
    width = max(len(name) for ranked in answers.values() for name, _ in ranked)
    text: list[str] = []
    for question, ranked in answers.items():
        text += [question, *(f"  {name:<{width}}  {probability:6.1%}" for name, probability in ranked)]
    return text


if __name__ == "__main__":
    cli.run(main)
