"""Words as the Penn Treebank splits them, and as NLTK does."""

from __future__ import annotations

import pytest

from goal_kernels.data.words import ABBREVIATIONS, treebank_words

EXPECTED = {
    "A man in a blue shirt.": "a man in a blue shirt .",
    "A black-and-white dog, wearing a T-shirt": "a black-and-white dog , wearing a t-shirt",
    "The man isn't here; they'll say it's John's.": (
        "the man is n't here ; they 'll say it 's john 's ."
    ),
    "I'm sure we've seen what she'd like": "i 'm sure we 've seen what she 'd like",
    "two dogs' toys at 5 o'clock": "two dogs ' toys at 5 o'clock",
    "You couldn't've known": "you couldn't 've known",
    "They cannot, and are gonna; gimme more": "they can not , and are gon na ; gim me more",
    "rock 'n' roll in the '90s": "rock 'n ' roll in the ' 90s",
    "It costs $3.88 (50% off) for 3,000 #1 fans": (
        "it costs $ 3.88 ( 50 % off ) for 3,000 # 1 fans"
    ),
    "Open at 5:30 p.m. on St. Mary's street": "open at 5:30 p.m. on st. mary 's street",
    'A sign says "Stop here." She stops.': "a sign says `` stop here . '' she stops .",
    '"Stop" (a "sign")': "`` stop '' ( a `` sign '' )",
    "A dog runs. The cat sits.": "a dog runs . the cat sits .",
    "Bus no. 5. the next one": "bus no . 5. the next one",
    "Wait... what?! -- yes": "wait ... what ? ! -- yes",
    "A [red] {blue} <green> ball & bat @ home": "a [ red ] { blue } < green > ball & bat @ home",
    "the dog’s “new” ‘bed’ – a café": "the dog ’ s “ new ” ‘ bed ’ – a café",
    "a man , a hat .": "a man , a hat .",
    "word,word;word http://x.y/z?a=b": "word , word ; word http : //x.y/z ? a=b",
    "He said 'hello.' and left": "he said ' hello . ' and left",
    "  ": "",
    "...": "...",
}


@pytest.mark.parametrize("text", EXPECTED)
def test_words(text: str) -> None:
    assert list(treebank_words(text)) == EXPECTED[text].split()


OTHERS = (
    "'Tis the season, d'ye know more'n one?",
    "A U.S. flag hangs near Dr. Smith's office in D.C. today.",
    "A photo of J. Smith. He smiles (a lot.)",
    "Two men (one old) are talking, aren't they?",
    "a ratio of 3/4, 1:2 and -5. degrees",
    "John's' dog and the boys' 'best' hat",
    "An e-mail to me@x.com; 24/7 *starred*",
    'end of it.. or not..." he asked',
    "a man --- and another---one",
    "c++ and a_b under 100% of £5.50 + €3,50",
    "¿Qué? señor's niño, l'été",
    "A baby's 1st. birthday. 2 cakes. 3. the end.",
    "`quoted` ``text'' is ''here''",
    "mixed.case.words a.b.c. runs",
    "a period . alone .",
    'He yelled "no!", then "yes." and "maybe".',
    "a list: one, two: 3; four",
    "T.V. is on. It's vs. them.",
)


def test_words_are_those_of_nltk() -> None:
    """Of its `word_tokenize`, given the same abbreviations: sentences first, then their words."""
    pytest.importorskip("nltk")
    from nltk.tokenize.destructive import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    known = PunktParameters()
    known.abbrev_types = set(ABBREVIATIONS)
    sentences, words = PunktSentenceTokenizer(known), NLTKWordTokenizer()
    for text in (*EXPECTED, *OTHERS):
        theirs = [w for s in sentences.tokenize(text.lower()) for w in words.tokenize(s)]
        assert list(treebank_words(text)) == theirs, text
