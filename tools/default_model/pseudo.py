"""Words that do not exist but read like English, with the syllables that they are made of.

They teach the model to copy a word letter for letter, and to count syllables by spelling."""

from lexicon import Phrase

ONSETS = ("b c d f g h j k l m n p r s t v w z br cr dr fl fr gr pl pr sl sm sn sp st str sw tr th sh ch wh cl bl gl "
          "sc sk").split()
MIDDLE_ONSETS = ONSETS[:18] + "ll mm nn tt ss rr mb nd nt rt lt st ck rm rd sp pp bb gg dd ff".split()
VOWELS = "a a a a e e e i i i o o o u u ai ea ee oa oo ou oi au aw ew".split()
CODAS = "b d g k ck l ll m n ng nk nt nd p r rd rk rm rn s ss st t th lt sh ch x mp ft sk".split()
SILENT_E = "be ce de fe ge ke le me ne pe re se te ve ze".split()
ENDINGS = "y er le ing a o on en et in el ow or ish ic um us".split()  # a syllable each, with the onset before


def pseudo_word(random):
    """Of 1 to 4 syllables."""
    n = random.choices((1, 2, 3, 4), (3, 5, 3, 1))[0]
    onset = random.choice(ONSETS) if random.random() < 0.88 else ""
    word = onset
    for i in range(n - 1):
        word += random.choice(VOWELS)
        if i < n - 2:
            word += random.choice(MIDDLE_ONSETS)
    kind = random.random()
    if n == 1:
        if kind < 0.3:
            word += random.choice("aaeiou") + random.choice(SILENT_E)
        else:
            word += random.choice(VOWELS) + random.choice(CODAS)
    elif kind < 0.5:
        ending = random.choice(ENDINGS)
        word += random.choice("b d g k p t".split() if ending == "le" else MIDDLE_ONSETS) + ending
    elif kind < 0.65:
        word += random.choice(MIDDLE_ONSETS[:18]) + random.choice("aaeiou") + random.choice(SILENT_E)
    else:
        word += random.choice(MIDDLE_ONSETS) + random.choice(VOWELS) + random.choice(CODAS)
    return Phrase(word, n)
