"""How much a text repeats itself."""

from collections import Counter
from collections.abc import Sequence


def auto_bleu(words: Sequence[str], n: int = 2) -> float:
    """The share of a text's n-grams that occur in it more than once (Lakhotia et al. 2021, section 3.3); 0 without
    n-grams. A perplexity that falls because this rises is no better one."""
    grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    total = sum(grams.values())
    return sum(count for count in grams.values() if count > 1) / total if total else 0.0
