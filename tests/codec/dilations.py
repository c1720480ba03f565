import re


def dilates_inputs(text: str) -> bool:
    """Whether a convolution of a program, in StableHLO (lhs_dilate = [1, 5]) or HLO (lhs_dilate=1x5), does."""
    factors = re.findall(r"lhs_dilate ?= ?\[?([\dx, ]+)", text)
    return any(int(factor) > 1 for each in factors for factor in re.findall(r"\d+", each))
