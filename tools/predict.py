"""Ask a model about a picture or a text."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.errors import ConfigError
from unimo.files import make_place
from unimo.inference.labels import PROMPT, check_prompt, split_labels
from unimo.ranges import Size

if TYPE_CHECKING:
    from unimo.tasks.base import Answer

DESCRIPTION = """Ask a model about a picture or a text.
VQA models take questions, entailment and retrieval models sentences (--text), NLVR2 models sentences about
two pictures (--image LEFT --image RIGHT), pre-trained models class names (--labels), captioning models
--caption, image classifiers and segmentation models nothing but the picture. Text classifiers take --text
(and --text-pair) without a picture, text generation --generate. Prints the best answers with their
probabilities; that of a caption or generated text is the mean over its tokens, that of a class of pixels its
share of the picture."""
EXAMPLE = 'python tools/predict.py --model output/unimo3_tiny_vqa --image p.png --question "what color?"'


def main() -> None:
    """Read the command line, ask, print."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    parser.add_argument("--model", required=True, help="model directory or run folder")
    about = "image file; NLVR2: given twice, first the left one"
    parser.add_argument("--image", action="append", default=[], help=about)
    parser.add_argument("--question", action="append", default=[], help="may be given several times")
    parser.add_argument("--text", action="append", default=[], help="sentence; may be given several times")
    parser.add_argument("--text-pair", default=None, help="text classifiers of pairs: the second sentence")
    parser.add_argument("--caption", action="store_true", help="describe the picture")
    parser.add_argument("--generate", default="", metavar="SOURCE", help="write from it; columns: tabs")
    parser.add_argument(
        "--n-best", type=cli.number(Size), default=1, help="captions or texts to print, best first"
    )
    parser.add_argument("--labels", default="", help='class names with commas between, e.g. "cat,dog"')
    parser.add_argument("--prompt", default=PROMPT, help="with --labels; default: %(default)s")
    parser.add_argument(
        "--top-k", type=cli.number(Size), default=5, help="answers to print for each question"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--save", default="", metavar="PNG", help="draw the picture with its answers")
    options = parser.parse_intermixed_args()
    asked = (options.question, options.text, options.labels, options.caption, options.generate)
    if sum(map(bool, asked)) > 1:
        raise ConfigError("give one of --question, --text, --caption, --generate, --labels, or --image alone")
    if options.save and not options.image:
        raise ConfigError("--save draws a picture; give it with --image FILE")
    if options.save:
        make_place(options.save, "--save")

    image = options.image[0] if len(options.image) == 1 else options.image
    answers = ask(options, image)
    if options.save:
        from unimo.inference.pipeline import draw_answers

        draw_answers(image, answers).save(options.save, format="PNG")
    if options.json:
        said = {
            question: [{"answer": one.text, "probability": round(one.probability, 6)} for one in ranked]
            for question, ranked in answers.items()
        }
        print(json.dumps({"image": image or "", "answers": said}))
        return
    width = max(len(one.text) for ranked in answers.values() for one in ranked)
    for question, ranked in answers.items():
        print(question, *(f"  {one.text:<{width}}  {one.probability:6.1%}" for one in ranked), sep="\n")


def ask(options: argparse.Namespace, image: str | list[str]) -> dict[str, list[Answer]]:
    """Return the answers to each question, sentence or prompt, best first."""
    from unimo.inference.pipeline import Answer, Pipeline, Question

    if options.labels:
        from unimo.inference.zero_shot import ZeroShotClassification, open_matcher

        labels, prompt = split_labels(options.labels), check_prompt(options.prompt)
        classifier = ZeroShotClassification(*open_matcher(options.model), labels, prompt)
        return {options.prompt: [Answer(*each) for each in classifier.rank(image)[: options.top_k]]}
    pipeline = Pipeline(options.model)
    source = [options.generate] if options.generate else []
    given = {"question": options.question, "text": options.text, "generate": source}
    option = next((name for name, texts in given.items() if texts), "caption" if options.caption else "")
    texts = given.get(option, [])
    pipeline.check_asked_with(option)
    questions = [Question(image or None, text, options.text_pair) for text in texts or [None]]
    count = options.n_best if option in ("caption", "generate") else options.top_k
    # One at a time, so that an answer does not depend on what else is asked, not even in its last digit.
    answers = [pipeline.ask_many([question], count=count)[0] for question in questions]
    return dict(zip(texts or [option or "class"], answers, strict=True))


if __name__ == "__main__":
    cli.run(main)
