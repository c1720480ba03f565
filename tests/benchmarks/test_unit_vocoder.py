from jaxslm.benchmarks import unit_vocoder


def test_both_sides_give_the_same_sound():
    result = unit_vocoder.run(["--small", "--seconds", "0.4", "--rounds", "1", "--warmup", "0", "--rows", "2"])
    apart = result["details"]["agreement"]
    assert apart["largest_difference"] < 1e-4 < 1e-3 < apart["deviation"]
    assert result["ratio"] > 0 and result["ours"] > 0
