"""launch/demo.py as a person meets it: the server in a process of its own, the page in headless Chromium."""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import encode_flac
from jaxslm.data.records import Records, Utterance, write_records
from jaxslm.generation import load
from jaxslm.tasks import own_voice
from tests.end_to_end.commands import ROOT
from tests.tiny_run import write_run

pytest.importorskip("gradio", reason="the demo extra is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

RATE = 16_000
TEXT = "Tom <b>opens</b> the door & leaves"
PATIENCE = 60_000  # ms, of what takes seconds
CUT = ".warning:has-text('cut at the length limit')"
WIDTH = "async i => { await i.decode(); return i.naturalWidth }"
LASTS = "a => new Promise(done => a.duration ? done(a.duration) : a.onloadedmetadata = () => done(a.duration))"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run as far as the page reads it: a model that has learnt nothing, and a voice of three steps."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    inventory = write_run(folder, samples=dict(text_tokens=16, speech_tokens=24))
    sound_N = (np.sin(np.arange(RATE) / 9) * rng.uniform(0.2, 0.4, RATE)).astype(np.float32)
    units = {inventory.sha256: inventory.encode(sound_N)}
    one = Utterance(id="a", text="a", audio=encode_flac(sound_N), duration=1.0, units=units, split="train")
    write_records(folder / "records", [one, dataclasses.replace(one, id="b")], inventories=[inventory])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_voice, "STEPS", 3)
        own_voice.make_voice(folder / "voice", Records(folder / "records"), inventory, seed=0)
    soundfile.write(folder / "said.wav", sound_N, RATE)
    (folder / "broken.wav").write_bytes(b"RIFF and no more")
    return folder


@pytest.fixture(scope="module")
def expected(workdir):
    """What the chain answers to the same: (seed, the text spoken), the transcript."""
    chain = load(str(workdir), acoustic=str(workdir / "voice"))
    says = ((seed, chain.say(TEXT, seed=seed)) for seed in range(1, 50))
    spoken = next((seed, said) for seed, said in says if len(said.units) > 9)
    return spoken, chain.transcribe(workdir / "said.wav", sampling={"temperature": 0.0})


@pytest.fixture(scope="module")
def address(workdir, tmp_path_factory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    words = [sys.executable, "launch/demo.py", f"--workdir={workdir}", f"--port={port}"]
    environment = os.environ | dict(JAX_PLATFORMS="cpu", TMPDIR=str(folder))
    log = folder / "log"
    with log.open("w") as file:
        server = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 180
        while not answers(address):
            assert server.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.2)
        yield address
        server.terminate()
        assert server.wait(60) == 0, log.read_text()[-3000:]
        assert not list(folder.glob("jaxslm-demo-*"))  # recordings are gone
    finally:
        server.kill()
        server.wait()


def answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=10) as response:
        return response.status == 200
    return False


@pytest.fixture(scope="module")
def browser(expected, address):
    """Opened last: what runs in its thread has an event loop."""
    with playwright.sync_playwright() as run:
        chromium = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    """The page, freshly opened; in the end there were no errors and no request that left this machine."""
    page, errors, left = browser.new_page(), [], []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    inside = (address, f"blob:{address}", "data:")
    page.on("request", lambda request: None if request.url.startswith(inside) else left.append(request.url))
    page.goto(address)
    page.wait_for_selector("#ask")
    yield page
    page.close()
    assert not errors and not left


def upload(page, path: Path) -> None:
    page.get_by_label("Transcribe speech").check()
    page.set_input_files("#audio input[type=file]", path)
    page.wait_for_selector("#audio button[aria-label=Clear]")  # is there once the file is


def test_a_text_is_spoken(page, expected):
    (seed, said), _ = expected
    page.fill("#text textarea", TEXT)
    page.fill("#seed input", str(seed))
    page.click("#ask")
    page.wait_for_selector("#details svg rect")
    assert page.text_content("#details code") == str(said) and page.locator("#details rect").count() == len(said.units)
    assert page.input_value("#said textarea") == TEXT and page.locator("#said b").count() == 0
    player = page.wait_for_selector("#sound audio[src^='blob:']", state="attached")
    lasts = player.evaluate(LASTS)
    assert lasts == pytest.approx(len(said.samples) / RATE, abs=0.01)
    assert page.wait_for_selector("#details img").evaluate(WIDTH) > 600
    assert "language model" in page.text_content("#details .seconds")
    assert page.locator(CUT).count() == (not said.stopped)


def test_a_recording_is_transcribed(page, workdir, expected):
    _, heard = expected
    upload(page, workdir / "said.wav")
    assert not page.is_visible("#text") and page.input_value("#temperature input[type=number]") == "0"
    page.click("#ask")
    page.wait_for_selector("#details .seconds")
    assert page.input_value("#said textarea") == heard.text
    assert page.locator(CUT).count() == (not heard.stopped)
    assert not page.is_visible("#sound")


def test_every_mode_of_the_run_is_there_and_a_voice_can_be_changed(page, workdir):
    names = [each.strip() for each in page.locator("#mode label").all_text_contents()]
    modes = ["Speak a text", "Transcribe speech", "Continue speech", "Continue a text", "Change the voice"]
    assert names == modes and not page.is_visible("#voice")  # this run's one voice takes on no other
    upload(page, workdir / "said.wav")
    page.get_by_label("Change the voice").check()
    page.wait_for_selector("#speed")
    page.click("#ask")
    page.wait_for_selector("#details img")


def test_what_cannot_be_answered_is_said(page, workdir):
    for text, message in (("", "there is no text"), ("?!", "has no words")):
        page.fill("#text textarea", text)
        page.click("#ask")
        page.wait_for_selector(f".failure:has-text('{message}')")
    page.get_by_label("Transcribe speech").check()
    page.click("#ask")
    page.wait_for_selector(".failure:has-text('there is no recording')")
    assert not page.is_visible("#details") and "Traceback" not in page.content()


def test_a_broken_recording_is_named_without_a_path_of_the_server(browser, address, workdir):
    with contextlib.closing(browser.new_page()) as page:  # whose console tells, as it should, what cannot be played
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        upload(page, workdir / "broken.wav")
        page.click("#ask")
        page.wait_for_selector(".failure:has-text('the recording: ')")
        assert "/" not in page.text_content(".failure").replace("`ffmpeg -i INPUT output.flac`", "")


@pytest.mark.parametrize("place", ["path", "address"])
def test_a_forged_request_reads_no_file_and_no_address(address, workdir, place):
    config = json.load(urllib.request.urlopen(f"{address}/config"))
    number = max(each["id"] for each in config["dependencies"])
    path = str(workdir / "said.wav") if place == "path" else f"{address}/config"
    audio = dict(path=path, meta={"_type": "gradio.FileData"})
    fields = dict(data=["Transcribe speech", "", audio, None, 0, 1, 0], fn_index=number, session_hash=place)
    body, kind = json.dumps(fields).encode(), {"Content-Type": "application/json"}
    join = urllib.request.Request(f"{address}/gradio_api/queue/join", body, kind)
    assert urllib.request.urlopen(join).status == 200
    events = urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash={place}", timeout=60)
    event = next(json.loads(line[5:]) for line in events if b"process_completed" in line)
    assert not event["success"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}/gradio_api/file={workdir / 'said.wav'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "there is no runs/spiritlm"), (["--workdir=WORKDIR", "--port=TAKEN"], "port"), (["--share"], "--share")],
)
def test_mistakes_at_the_start_are_named_in_a_line(address, workdir, tmp_path, arguments, message):
    words = [each.replace("WORKDIR", str(workdir)).replace("TAKEN", address.split(":")[-1]) for each in arguments]
    command = [sys.executable, str(ROOT / "launch" / "demo.py"), *words]
    environment = os.environ | dict(JAX_PLATFORMS="cpu", PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
