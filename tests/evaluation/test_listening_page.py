import base64
import io
import json
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
import soundfile

from jaxslm.evaluation.listening_page import Clip, write_page
from jaxslm.evaluation.perceptual import Scores
from jaxslm.evaluation.spectrogram import mel_db

RATE = 16_000


class Page(HTMLParser):
    """What a page holds: sounds, pictures, addresses, cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.sounds, self.pictures, self.addresses, self.rows, self.tags = [], {}, [], [[]], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes.items() if name in ("src", "href")]
        if tag == "audio":
            self.sounds.append(soundfile.read(io.BytesIO(self._decoded(attributes["src"], "audio/flac"))))
        if tag == "img":
            picture = matplotlib.image.imread(io.BytesIO(self._decoded(attributes["src"], "image/png")))
            self.pictures.setdefault(attributes["alt"], []).append(picture)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self.rows.append([])

    def handle_data(self, data):
        if self.rows[-1]:
            self.rows[-1][-1] += data.strip()

    @staticmethod
    def _decoded(address, kind):
        head, data = address.split(",", 1)
        assert head == f"data:{kind};base64"
        return base64.b64decode(data, validate=True)


def tone(hertz, seconds=0.5):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    rows = [{"step": i, "loss": 1 / i, "loss/mel": 2 / i, "usage/1": 0.5, "usage/2": None, "mfu": 0.1} for i in (1, 2)]
    rows.append({"step": 2, "heldout/loss": 0.7, "heldout/loss/mel": 0.9})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    broken = tone(500)
    broken[7] = np.nan
    scores = {"1 level": Scores({"pesq": 1.25}), "8 levels": Scores({"pesq": np.nan}, {"pesq": "too <short>"})}
    clips = [
        Clip("a<b>&c", tone(1000), {"1 level": broken, "8 levels": tone(1000)}, RATE, scores, text="hello <there>"),
        Clip("b", tone(1000), {"1 level": 2 * tone(1000)}, RATE),
    ]
    write_page(folder / "index.html", "Codec <x>", clips, facts={"bitrate": "4 kbps"}, metrics=folder / "metrics.jsonl")
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_sounds_are_those_given_and_what_is_not_finite_is_said(page):
    assert all(rate == RATE for _, rate in page.sounds)
    original, first, eighth, *_ = (samples for samples, _ in page.sounds)
    np.testing.assert_allclose(original, tone(1000), atol=2**-15)
    np.testing.assert_array_equal(original, eighth)
    np.testing.assert_allclose(np.delete(first, 7), np.delete(tone(500), 7), atol=2**-15)
    assert first[7] == 0
    assert any("1 samples are not finite" in cell for row in page.rows for cell in row)


def test_the_page_needs_nothing_beside_it_and_names_cannot_break_it(page):
    assert len(page.addresses) == 5 + 5 + 1 and all(address.startswith("data:") for address in page.addresses)
    assert not {"b", "there", "x", "short", "script", "link"} & set(page.tags)


def test_metrics_stand_below_their_reconstruction(page):
    assert ["bitrate", "4 kbps"] in page.rows
    assert ["", "original", "1 level", "8 levels"] in page.rows
    assert ["PESQ-wb", "", "1.250", "none: too <short>"] in page.rows


def test_the_colours_of_a_clip_have_one_scale(page):
    same, quiet = page.pictures["original"][0], page.pictures["8 levels"][0]
    np.testing.assert_array_equal(same, quiet)
    assert np.abs(page.pictures["original"][1] - page.pictures["1 level"][1]).max() > 0.05  # 6 dB louder


def test_the_curves_have_a_panel_each(page):
    (curves,) = page.pictures["curves"]
    assert curves.shape[1] > 900  # three panels: loss, loss/mel, usage


def test_without_curves_the_page_has_none(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    write_page(tmp_path / "x.html", "x", [], metrics=tmp_path / "metrics.jsonl")
    assert Page((tmp_path / "x.html").read_text()).pictures == {}
    assert [path.name for path in tmp_path.glob("x.html*")] == ["x.html"]


def test_a_tone_is_loudest_in_its_band_whatever_the_padding():
    librosa = pytest.importorskip("librosa")
    mels = mel_db(tone(1000), RATE)
    assert len(mels) == 1 + len(tone(1000)) // 128
    centres = librosa.mel_frequencies(82, fmax=RATE / 2)[1:-1]
    assert np.all(np.abs(centres[mels[5:-5].argmax(axis=1)] - 1000) < 40)
    assert mel_db(np.zeros(3, np.float32), RATE).shape == (1, 80)
