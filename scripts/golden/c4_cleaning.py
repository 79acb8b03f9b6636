# SPDX-License-Identifier: Apache-2.0
# C4's cleaning rules: made-up pages, and pages of the shipped text with damaged lines, through clean_page and the bad-word
# filter of tensorflow_datasets 4.9.10 (tensorflow_datasets/text/c4_utils.py).
# Writes tests/golden/c4_cleaning.json. The original splits sentences with NLTK's Punkt and its English parameters, a
# download of its own; here Punkt runs with its default parameters, and pages near the limit of three sentences are
# made so that the two agree.
# Run: python scripts/golden/c4_cleaning.py

import collections
import gzip
import json
import os
import random
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from nltk.tokenize.punkt import PunktSentenceTokenizer
from tensorflow_datasets.text import c4_utils

from common import versions, write_json

TEXT = Path(__file__).resolve().parents[2] / "recipes/data/english/english-validation.00000-of-00001.json.gz"
BAD_WORDS = ["darn", "blasted thing", "p1ffle", "heck"]
PAGES = [
    "One short line.\nThis line has exactly five words.\nThis line has only four.\nThere are enough words here. Truly so.",
    "This page has some text.\nSome lines don't end with punctuation\nAnd some of these lines end with citations.[3]\n"
    "Or have requested citations[citation needed]. Or the option to edit.[edit]\nNumbers [12] and [] and [a] go their ways.",
    "A citation after a blank loses the line. [1]\nThis one is kept as it is. And so is this one here!\nDone with it, is it not?",
    "This first line has one sentence.\nThis line looks like it has three sentences...but it's actually just 1.",
    "This page starts out with some text.\nEverything looks good at first, since it is.\nfn foo(a) { bar = a + 10; }.",
    "Lorem IPSUM dolor sit amet, consectetur elit.\nUt enim ad minim veniam, quis nostrud.\nDuis aute irure dolor in it.",
    "Please enable JavaScript to see this page.\nHere is a real sentence of words. And another.\nThe third one is the last.",
    "This page has with some text. So, that's good!\nThis line mentions the Terms of Use.\nThis line should be okay.\n"
    "The privacy policy is mentioned in this line.\nLet's talk about the Cookie Policy now.\nThis site uses cookies to work.\n"
    "The use of cookies is explained.\nWe use cookies for all of it.\nA cookie is a sort of cake.",
    "It ends in an ellipsis, this line...\nIt ends with a quote, he said, \"at last\"\nIs this really a question for you?\n"
    "What a fine exclamation this one is!\nIt ends with a colon, which is no end mark:",
    "\u00a0 Blanks of every kind\u2003around this line here. \u3000\nA line separator\u2028splits this line of text.\n"
    "And\u0085so does the next-line sign of old. Truly.\nOne more sentence stands here. And one more.",
    "Here is a " + "w" * 1000 + " word of a thousand.\nHere is a " + "w" * 1001 + " word of one more.\n"
    "Here is a " + "\u00e9" * 1001 + " word of accents.\nPlain words fill this line. And this one too.\nThe end is near now.",
    "That darn cat sat on the mat.\nIt would not move at all. So it stayed.\nNobody minded it in the end.",
    "That darned cat sat on the mat.\nIt would not move at all. So it stayed.\nNobody minded it in the end.",
    "Heck, said the cat on the mat.\nIt would not move at all. So it stayed.\nNobody minded it in the end.",
    "Where is that blasted thing? It was here.\nIt would not move at all. So it stayed.\nNobody minded it in the end.",
    "They call it p1ffle_x here. And more.\nIt would not move at all. So it stayed.\nThey call it \u00e9p1ffle and xp1ffle now.",
    "A (heck) in brackets is found out.\nIt would not move at all. So it stayed.\nNobody minded it in the end.",
    "too short",
]


def damaged_page(text: str, rng: random.Random) -> str:
    """Paragraphs cut into lines, some of them spoilt."""
    lines = []
    for paragraph in text.split("\n"):
        words = paragraph.split(" ")
        while words:
            count = rng.choice([3, 4, 5, 6, 12, 30, 60])
            lines.append(" ".join(words[:count]))
            words = words[count:]
    spoil = [
        lambda line: line, lambda line: line, lambda line: line + ".", lambda line: line + ".", lambda line: line + "?",
        lambda line: line + "...", lambda line: line + "!\"", lambda line: line + "[17].", lambda line: line + ". [2]",
        lambda line: "\t" + line + "[edit]! ", lambda line: line + " javaScript.", lambda line: line + " Cookie policy.",
    ]
    if rng.random() < 0.15:
        spoil.append(lambda line: line + rng.choice([" {x}.", " lorem ipsum.", " darn.", " heck"]))
    return rng.choice(["\n", "\r\n", "\n"]).join(rng.choice(spoil)(line) for line in lines if line.strip())


def clean(text: str) -> dict:
    counters = collections.Counter()
    page = c4_utils.PageFeatures(url="u", text=text, language="en")
    if not c4_utils.is_valid_length(page):
        return {"text": text, "kept": None, "counters": {"too_long": 1}}
    pages = list(c4_utils.get_clean_page_fn()(page, counter_inc_fn=lambda name, amount=1: counters.update({name: amount})))
    result = {"text": text, "kept": pages[0].text if pages else None, "counters": dict(sorted(counters.items()))}
    if pages and not BAD_WORD_FILTER(pages[0]):
        result["kept"], result["counters"]["bad_word"] = None, 1
    return result


def main() -> None:
    global BAD_WORD_FILTER
    c4_utils._SENTENCE_TOKENIZER = PunktSentenceTokenizer()
    # Counts on the side (Beam metrics) are of no use here.
    c4_utils.get_counter_inc_fn = lambda namespace: lambda name, amount=1: None
    BAD_WORD_FILTER = c4_utils.get_badwords_filter_fn({"en": BAD_WORDS})
    rng = random.Random(5)
    documents = [json.loads(line)["text"] for line in gzip.open(TEXT, "rt", encoding="utf-8")]
    pages = PAGES + [damaged_page(text[:1500], rng) for text in rng.sample(documents, 60)]
    write_json("c4_cleaning.json", "scripts/golden/c4_cleaning.py", versions(["tensorflow-datasets", "nltk"]),
               {"bad_words": BAD_WORDS, "pages": [clean(page) for page in pages]})


if __name__ == "__main__":
    main()
