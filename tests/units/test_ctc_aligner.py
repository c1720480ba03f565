import numpy as np
import pytest

from jaxslm.benchmarks import aligner as aligner_bench
from jaxslm.units.ctc_aligner import CtcAligner, calibrate
from jaxslm.units.words import AlignmentError, Word, check_words

UPPER = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]  # as wav2vec2-base-960h has them
LOWER = ["-", *"aienoutsrmkldghybpwcvjzf'qx"]  # as MMS has them, romanised: no label between words
RUSSIAN = ["<pad>", "|", *"абвгдежзийклмнопрстуфхцчшщъыьэюя"]
HOP = 320


class Written:
    """A model whose clips have their labels written into the samples: 20 ms of the value id / 100 each."""

    frame_rate = 50.0

    def __init__(self, labels, blank=0):
        self.labels, self.blank = labels, blank

    def clip(self, pattern: str) -> np.ndarray:
        """One frame a character, "_" being the blank."""
        ids = [self.blank if letter == "_" else self.labels.index(letter) for letter in pattern]
        return np.repeat(np.float32(ids) / 100, HOP)

    def log_probs(self, clips):
        results = []
        for samples_N in clips:
            ids = np.rint(samples_N[::HOP] * 100).astype(int)
            log_probs = np.full((len(ids), len(self.labels)), np.log(0.1 / len(self.labels)), np.float32)
            log_probs[np.arange(len(ids)), ids] = np.log(0.9)
            results.append(log_probs)
        return results


def times(words):
    return [(word.text, round(word.start, 3), round(word.end, 3)) for word in words]


def test_words_have_the_times_of_their_letters_and_the_written_form():
    model = Written(UPPER)
    bare = CtcAligner(model, spread=0.0)
    clip = model.clip("__HE_L_LLO_|_W_ORLD___")
    words = bare.align(clip, "“Hello, – world!”")
    assert times(words) == [("“Hello,", 0.04, 0.2), ("–", 0.2, 0.2), ("world!”", 0.26, 0.38)]
    assert check_words(words, "“Hello, – world!”", len(clip) / 16000, "here") == words


def test_words_are_widened_up_to_the_middle_of_a_gap_and_to_the_ends():
    model = Written(UPPER)
    clip = model.clip("_A_|_NO_T____DO__")
    assert times(CtcAligner(model).align(clip, "a not do")) == [("a", 0, 0.06), ("not", 0.08, 0.2), ("do", 0.24, 0.32)]
    wide = CtcAligner(model, spread=0.05).align(clip, "a not do")
    assert times(wide) == [("a", 0, 0.07), ("not", 0.07, 0.22), ("do", 0.22, 0.34)]
    late = CtcAligner(model, spread=0.0, delay=0.04).align(clip, "a not do")
    assert times(late) == [("a", 0, 0.0), ("not", 0.06, 0.14), ("do", 0.22, 0.26)]


def test_delay_and_spread_are_found_from_known_times():
    model = Written(UPPER)
    clips = [model.clip("_" * n + "_A_|_NO_T____DO__") for n in range(1, 6)]
    texts = ["a not do"] * len(clips)
    truth = []
    for words in CtcAligner(model, spread=0.0).align_batch(clips, texts):  # sound from 50 ms before to 10 ms after
        truth.append([Word(word.text, word.start - 0.05, word.end + 0.01) for word in words])
    delay, spread = calibrate(CtcAligner(model), clips, texts, truth)
    np.testing.assert_allclose((delay, spread), (0.02, 0.03), atol=1e-9)
    with pytest.raises(ValueError, match="no clip could be aligned"):
        calibrate(CtcAligner(model), clips[:1], ["..."], truth[:1])


@pytest.mark.parametrize(
    "labels, text, language, spelling",
    [
        (UPPER, "Don’t stop", "en", "DON'T|STOP"),
        (LOWER, "Don’t stop", "en", "don'tstop"),
        ([*"-|", *"dontsp"], "don't stop", "en", "dont|stop"),  # no apostrophe among the labels
        (UPPER, "well-known 42 & naïve", "en-US", "WELL|KNOWN|FORTY|TWO|AND|NAIVE"),
        (UPPER, "say 日本 now", "en", "SAY|*|NOW"),
        (UPPER, "le 42ème café", "fr", "LE|*EME|CAFE"),
        ([*"-|", *"lecaféè"], "Le cafe\u0301", "fr", "le|café"),
        (RUSSIAN, "Ещё — чай!", "ru", "еще|чай"),
        (LOWER, "नमस्ते om", "hi", "*om"),  # marks have no star of their own
    ],
)
def test_spelling(labels, text, language, spelling):
    aligner = CtcAligner(Written(labels))
    tokens, owners = aligner.spell(text, language)
    assert "".join([*labels, "*"][token] for token in tokens) == spelling
    assert sorted(set(owners) - {-1}) == [i for i, item in enumerate(text.split()) if item != "—"]
    assert all((owner == -1) == (letter == "|") for owner, letter in zip(owners, spelling, strict=True))


def test_words_in_another_script_take_the_speech_between_their_neighbours():
    model = Written(UPPER)
    aligner = CtcAligner(model, spread=0.0)
    words = aligner.align(model.clip("_S_AY_|_NI_PPON_|_N_OW_"), "say 日本 now")
    assert times(words) == [("say", 0.02, 0.1), ("日本", 0.16, 0.3), ("now", 0.36, 0.44)]


def test_a_batch_gives_what_single_clips_give_and_failures_cost_only_themselves():
    model = Written(UPPER)
    aligner = CtcAligner(model)
    patterns = ["_HI_", "_HI__|_YO_U_", "_NO_"]
    clips = [model.clip(pattern) for pattern in patterns]
    texts = ["hi", "hi you", "no"]
    found = aligner.align_batch([*clips, *clips], [*texts, "a text that is longer", "...", "日本"])
    assert found[:3] == [aligner.align(clip, text) for clip, text in zip(clips, texts, strict=True)]
    causes = [
        "needs 21 frames, the audio has 4",
        "there is no word to align in '...'",
        "no letter of '日本' is a label",
    ]
    for error, cause in zip(found[3:], causes, strict=True):
        assert isinstance(error, AlignmentError) and cause in str(error)
    with pytest.raises(AlignmentError, match="no word to align"):
        aligner.align(clips[0], "?")
    assert aligner.align_batch([], []) == []


def test_the_text_of_other_audio_is_refused():
    model = Written(UPPER)
    clip = model.clip("_WE_|_WAL_K_|_AL_ONG_|_THE_|_RI_VER__")
    assert len(CtcAligner(model).align(clip, "we walk along a river")) == 5  # one word is another
    with pytest.raises(AlignmentError, match=r"nats a letter less .* \(limit 5\); check that audio and text belong"):
        CtcAligner(model).align(clip, "nobody sings here")
    assert CtcAligner(model, max_deficit=np.inf).align(clip, "nobody sings here")


def test_a_vocabulary_of_another_model_is_refused():
    model = Written(UPPER)
    clip = model.clip("_HI_")
    model.labels = UPPER[:-1]
    clips = model.log_probs([clip])
    model.log_probs = lambda _: [np.pad(clips[0], ((0, 0), (0, 1)))]
    with pytest.raises(ValueError, match="32 log-probabilities a frame for 31 labels; give it its own vocab.json"):
        CtcAligner(model).align(clip, "hi")
    with pytest.raises(ValueError, match="the blank is label 40 of 32"):
        CtcAligner(Written(UPPER, blank=40))


@pytest.mark.slow
def test_a_model_trained_on_synthetic_speech_gives_its_word_times():
    pytest.importorskip("espeakng_loader", reason="pip install 'jaxslm[demo]'")
    pytest.importorskip("pocketsphinx", reason="pip install 'jaxslm[demo]'")
    details = aligner_bench.run(["--train=400", "--calibration=10", "--utterances=40"])["details"]
    for name in ("ctc", "ctc calibrated"):
        errors = details["errors_s"][name]
        assert errors["start_median"] <= 0.02 and errors["end_median"] <= 0.02 and errors["failed"] == 0
    assert abs(details["delay_s"]) < 0.015 and details["wrong_text_aligned"]["ctc"] < 0.3
