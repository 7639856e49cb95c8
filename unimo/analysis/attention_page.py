"""The attentions of `attention.py` as an HTML page, whose words and parts of the picture can be clicked."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unimo.analysis.attention import Attention, Selection, strongest_word
from unimo.analysis.attention_picture import HEAT, MARK, STRONGEST, draw, reading
from unimo.analysis.show import data_uri, html_page, writing_to
from unimo.files import write_text

READING = (
    "How to read it. A word, or a part of the picture, spreads 100% of its attention over everything it "
    "reads. Click a word, and its row is drawn over the picture; click a part of the picture, and its row "
    "is drawn over the words. Below stands where the 100% went. With two models, both show the same word "
    "or place."
)
STYLE = f"""body{{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1100px;color:#1e1e1e}}
.models{{display:flex;flex-wrap:wrap;gap:32px}}section{{flex:1;min-width:400px;max-width:520px}}
h2{{font-size:16px;margin:4px 0}}small,.note{{color:#6e6e6e}}.stage{{position:relative;display:inline-block}}
.stage img{{display:block;width:400px}}.painted img{{filter:grayscale(.6) opacity(.75)}}
.stage svg{{position:absolute;inset:0;width:100%;height:100%}}
rect{{cursor:pointer;fill:rgb{HEAT};fill-opacity:0;stroke:rgb{HEAT};stroke-width:2;stroke-opacity:0;
vector-effect:non-scaling-stroke}}.grid rect{{stroke-width:0}}rect:hover{{stroke-width:2;stroke-opacity:1}}
rect.asked{{stroke:rgb{MARK};stroke-width:3;stroke-opacity:1}}
.words{{margin:8px 0}}button{{font:inherit;border:2px solid transparent;background:none;padding:1px 5px;
border-radius:3px;cursor:pointer}}button:hover{{border-color:#bbb}}button.asked{{border-color:rgb{MARK}}}"""
SCRIPT = """
const percent = x => (100 * x).toFixed(x >= 0.00005 && x < 0.01 ? 2 : 1) + "%";
const sum = row => row.reduce((a, b) => a + b, 0);
const sections = [...document.querySelectorAll("section")].map((root, i) => ({
  data: MODELS[i], stage: root.querySelector(".stage"),
  rects: [...root.querySelectorAll("rect")].sort((a, b) => a.dataset.part - b.dataset.part),
  buttons: [...root.querySelectorAll("button")],
  says: root.querySelector(".says")}));
function tell(who, row, names, kind, others, share) {
  const order = row.map((_, i) => i).sort((a, b) => row[b] - row[a]), all = sum(row);
  const first = order.slice(0, 3).map(i => `${names[i]} (${percent(row[i])})`).join(", ");
  return `${who} reads ${first}; all ${kind} together ${percent(all)}, ${others} ${percent(share)}, `
    + `all else ${percent(Math.max(0, 1 - all - share))}.`;
}
function paint(items, row, set) {
  const low = Math.min(...row), high = Math.max(...row);
  items.forEach((item, i) => set(item, high > low ? (row[i] - low) / (high - low) : 0));
}
function show(section, word, part) {
  const {data, stage, rects, buttons, says} = section;
  const seen = word >= 0 && data.of_words ? data.of_words[word].slice(1) : [];
  const said = part >= 0 && data.of_parts ? data.of_parts[part].slice(0, -1) : [];
  stage.classList.toggle("painted", seen.length > 0);
  paint(rects, seen, (rect, share) => {
    rect.style.fillOpacity = STRONGEST * share * (data.grid ? 1 : 0.5);
    rect.style.strokeOpacity = data.grid ? "" : share;
  });
  paint(buttons, said, (button, share) => {
    button.style.background = `rgba(${HEAT}, ${STRONGEST * share})`;
    button.title = said.length ? percent(said[buttons.indexOf(button)]) : "";
  });
  rects.forEach((rect, i) => {
    rect.classList.toggle("asked", i === part);
    if (i === part) rect.style.strokeOpacity = 1;
    rect.firstChild.textContent = data.parts[i] + (seen.length ? ": " + percent(seen[i]) : "");
  });
  buttons.forEach((button, i) => button.classList.toggle("asked", i === word));
  const name = word >= 0 ? `\u201c${data.words[word]}\u201d`
    : (data.parts[part] || "").replace(/^./, first => first.toUpperCase());
  if (seen.length) {
    says.textContent = tell(name, seen, data.parts, "parts", "class token", data.of_words[word][0]);
  } else if (said.length) {
    const special = data.of_parts[part][said.length];
    says.textContent = tell(name, said, data.words, "words", "special tokens", special);
  } else if (word >= 0) says.textContent = "No word reads the picture in this model.";
  else says.textContent = part >= 0 ? "No part of the picture reads the words in this model."
    : "This word is not in the text as this model reads it.";
}
function sameWord(from, to, word) {
  return to.data.words[word] === from.data.words[word] ? word : to.data.words.indexOf(from.data.words[word]);
}
function samePart(from, to, part) {
  const centre = ([l, t, r, b]) => [(l + r) / 2, (t + b) / 2], [x, y] = centre(from.data.boxes[part]);
  const far = to.data.boxes.map(box => { const [u, v] = centre(box); return (u - x) ** 2 + (v - y) ** 2; });
  return far.indexOf(Math.min(...far));
}
for (const from of sections) {
  from.buttons.forEach((button, word) => button.onclick = () =>
    sections.forEach(to => show(to, sameWord(from, to, word), -1)));
  from.rects.forEach((rect, part) => rect.onclick = () =>
    sections.forEach(to => show(to, -1, samePart(from, to, part))));
}
sections.forEach(section => show(section, section.data.word, section.data.part));
"""


def write(
    attentions: Sequence[Attention], selections: Sequence[Selection], folder: str | Path, source: str = ""
) -> tuple[Path, Path]:
    """Write `attention.png` and `attention.html`; `source` stands in their headings.

    Raises:
        ConfigError: see `writing_to`.
    """
    with writing_to(folder) as out:
        picture, page = out / "attention.png", out / "attention.html"
        draw(attentions, selections, source).save(picture, format="PNG")
        write_text(page, make_page(attentions, selections, source))
    return picture, page


def make_page(attentions: Sequence[Attention], selections: Sequence[Selection], source: str = "") -> str:
    """Build an HTML document with embedded images, data and script."""
    data = [_data(*each) for each in zip(attentions, selections, strict=True)]
    constants = {"MODELS": data, "STRONGEST": STRONGEST, "HEAT": HEAT}
    # A `<` of a text must not end the script.
    told = "".join(
        f"const {name} = {json.dumps(value)};\n".replace("<", "\\u003c") for name, value in constants.items()
    )
    notes = "".join(f'<p class="note">{text}</p>\n' for text in reading(READING, attentions))
    sections = "\n".join(map(_section, attentions))
    body = f'{notes}<div class="models">{sections}</div>\n<script>\n{told}{SCRIPT}</script>'
    return html_page("Attention", "Attention between words and picture", STYLE, source, body)


def _data(attention: Attention, selection: Selection) -> dict[str, Any]:
    """Return what the script reads of a model; weights with five digits behind the point."""
    of_words, of_parts = (
        None if table is None else [[round(float(weight), 5) for weight in row] for row in table]
        for table in (attention.of_words, attention.of_parts)
    )
    # A model whose words read no picture begins with what a part of the picture reads.
    by_word = selection.words and (of_words or not (of_parts and selection.parts))
    return {
        "words": attention.words,
        "parts": [attention.name(part) for part in range(len(attention.boxes))],
        "boxes": attention.boxes.round(4).tolist(),
        "grid": attention.grid,
        "of_words": of_words,
        "of_parts": of_parts,
        "word": strongest_word(attention, selection.words) if by_word else -1,
        "part": -1 if by_word else selection.parts[0],
    }


def _section(attention: Attention) -> str:
    left, top, right, bottom = attention.boxes.T
    # Small regions come last, so that they lie above large ones and can be clicked.
    width, height = right - left, bottom - top
    rects = "".join(
        f'<rect data-part="{part}" x="{left[part]:.4f}" y="{top[part]:.4f}" width="{width[part]:.4f}" '
        f'height="{height[part]:.4f}"><title></title></rect>'
        for part in np.argsort(-width * height, kind="stable")
    )
    words = "".join(f'<button type="button">{html.escape(word)}</button>' for word in attention.words)
    return (
        f"<section><h2>{html.escape(attention.model)} <small>{attention.chosen}</small></h2>"
        f'<div class="stage{" grid" if attention.grid else ""}">'
        f'<img src="{data_uri(attention.picture, "JPEG")}" alt="picture">'
        f'<svg viewBox="0 0 1 1" preserveAspectRatio="none">{rects}</svg></div>'
        f'<div class="words">{words}</div><p class="says"></p></section>'
    )
