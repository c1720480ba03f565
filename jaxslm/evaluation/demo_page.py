"""A page in the browser to talk to trained models (Gradio, extra `demo`). It needs nothing from the network."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxslm.evaluation.answers import (
    MODES,
    MOST_BYTES,
    MOST_CHARACTERS,
    MOST_SEED,
    SPEEDS,
    TEMPERATURES,
    Asked,
    Shown,
    about,
    failure,
    modes_of,
    show,
    speakers_of,
)
from jaxslm.generation.chain import Chain

log = logging.getLogger(__name__)

STYLE = """
.failure, .warning { margin: 0 0 .5em; padding: .6em .9em; border-radius: 6px; border-left: 4px solid }
.failure { background: #fdecec; border-color: #c0392b; color: #7b1e14 }
.warning { background: #fff6e0; border-color: #d69e2e; color: #6b4e0b }
.about { opacity: .7; margin: 0 }
#details section { margin-bottom: 1.2em }
#details h3 { font-size: 1em; font-weight: 600; margin: 0 0 .4em }
#details img { width: 100%; max-width: 720px; border-radius: 4px; background: #fff }
#details svg { display: block; max-width: 100%; height: auto }
#details small { opacity: .7 }
#details code { overflow-wrap: anywhere; font-size: .85em }
#details .seconds, #details .seconds * { border: 0 !important; background: none }
#details .seconds :is(th, td) { padding: .1em 1.5em .1em 0; text-align: left; font-weight: normal }
#details .seconds tr:last-child * { font-weight: 600 }
"""
_FONTS = dict(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # none that is fetched
_MOST_WAITING = 16  # requests
_KEPT_SECONDS = 1800  # recordings and answers, which may be heard so long
Recordings = Callable[[str], bytes]


def load_gradio(folder: str) -> Any:
    """Gradio, which is to keep its files in `folder` and to report to nobody. Raises ValueError where it is not."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=folder, HF_HUB_OFFLINE="1")
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError(f"the demo page needs {error.name}: pip install -e '.[demo]'") from error
    return gradio


def build_page(chain: Chain, gradio: Any, read: Recordings) -> Any:
    """The `gradio.Blocks` of a chain. read: the bytes of a file that Gradio keeps.

    Raises ValueError where the chain can do nothing.
    """
    names = modes_of(chain)
    if not names:
        raise ValueError(
            "these runs can do nothing alone: name a language model, --workdir, or what speaks, --acoustic"
        )
    with gradio.Blocks(title="jaxslm", analytics_enabled=False, delete_cache=(60, _KEPT_SECONDS)) as page:
        gradio.HTML(f'<h1>jaxslm</h1><p class="about">{about(chain)}</p>')
        with gradio.Row():
            with gradio.Column(scale=5, min_width=320):
                mode = gradio.Radio(names, value=names[0], label="What to do", elem_id="mode")
                fields = _fields(chain, gradio, names[0])
                button = gradio.Button("Answer", variant="primary", elem_id="ask")
            with gradio.Column(scale=6, min_width=320):
                outputs = [
                    gradio.HTML('<p class="about">The answer comes here.</p>', elem_id="message"),
                    gradio.Textbox(label="Text", lines=2, interactive=False, visible=False, elem_id="said"),
                    gradio.Audio(
                        label="Sound", interactive=False, visible=False, elem_id="sound", buttons=["download"]
                    ),
                    gradio.HTML(visible=False, elem_id="details"),
                ]

        def answer(mode: str, *values: Any) -> list:
            return _updates(gradio, _guarded(chain, Asked(mode, *values), read))

        def fitting(mode: str) -> list:
            return _fitting(chain, gradio, mode)

        quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
        mode.change(fitting, mode, fields, **quiet)
        asks = [button.click, fields[0].submit]
        gradio.on(asks, answer, [mode, *fields], outputs, api_visibility="private", concurrency_limit=1)
    return page.queue(max_size=_MOST_WAITING, default_concurrency_limit=1, api_open=False)


def _fields(chain: Chain, gradio: Any, first: str) -> list:
    """The fields of `Asked` in their order, behind the mode."""
    seen = _visible(chain, first)
    recorded = dict(sources=["upload", "microphone"], type="filepath", buttons=[])
    speakers = speakers_of(chain)
    text = gradio.Textbox(
        label="Text",
        lines=3,
        max_length=MOST_CHARACTERS,
        placeholder="Tom opens the door",
        visible=seen["text"],
        elem_id="text",
    )
    label = "Recording, up to a minute"
    audio = _uploads_only(gradio.Audio(label=label, visible=seen["audio"], elem_id="audio", **recorded))
    if speakers:
        voice = gradio.Dropdown(speakers, value=speakers[0], label="Speaker", visible=seen["voice"], elem_id="voice")
    else:
        label = "Voice to speak in: a recording, of which 3 s are heard (optional)"
        voice = _uploads_only(gradio.Audio(label=label, visible=seen["voice"], elem_id="voice", **recorded))
    slider = dict(step=0.05, min_width=200)
    with gradio.Row():
        speed = gradio.Slider(*SPEEDS, value=1.0, label="Speed", visible=seen["speed"], elem_id="speed", **slider)
        first_value = dict(value=MODES[first].temperature, visible=seen["temperature"])
        temperature = gradio.Slider(*TEMPERATURES, label="Temperature", elem_id="temperature", **first_value, **slider)
    seed = gradio.Number(0, label="Seed", precision=0, minimum=0, maximum=MOST_SEED, elem_id="seed")
    return [text, audio, voice, seed, speed, temperature]


def _uploads_only(audio: Any) -> Any:
    """The same component, which fetches nothing: an address in the place of a file would make the server go there."""
    keep = audio.async_move_resource_to_block_cache

    async def refuse_addresses(path: Any) -> Any:
        if path is not None and "://" in str(path):
            raise ValueError("an address was given as a recording")
        return await keep(path)

    audio.async_move_resource_to_block_cache = refuse_addresses
    return audio


def _visible(chain: Chain, name: str) -> dict[str, bool]:
    """Which fields a mode has."""
    mode, voice = MODES[name], chain.voice
    return dict(
        text=mode.given == "text",
        audio=mode.given == "audio",
        voice=mode.to != "text" and voice is not None and (voice.clones or bool(speakers_of(chain))),
        seed=True,
        speed=mode.to != "text" and voice is not None,
        temperature=mode.to != "voice",
    )


def _fitting(chain: Chain, gradio: Any, name: str) -> list:
    if name not in modes_of(chain):
        return [gradio.skip()] * len(_visible(chain, next(iter(MODES))))
    values = dict(temperature=dict(value=MODES[name].temperature))
    return [gradio.update(visible=seen, **values.get(field, {})) for field, seen in _visible(chain, name).items()]


def _guarded(chain: Chain, asked: Asked, read: Recordings) -> Shown:
    try:
        return show(chain, asked, read)
    except Exception:  # of whatever kind, the page says that there was one and the server goes on
        log.exception("a request failed")
        return failure("this could not be answered because of a fault in the program: its log has the details")


def _updates(gradio: Any, shown: Shown) -> list:
    values = (shown.message or None, shown.text, shown.sound, shown.details or None)
    return [gradio.update(value=value, visible=value is not None) for value in values]


def kept_in(folder: Path) -> Recordings:
    """Reads files that lie in `folder`, and no other."""

    def read(name: str) -> bytes:
        path = Path(name).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise ValueError("the recording is not there any more: upload it again")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"the recording has more than {MOST_BYTES >> 20} MB: cut it")
        return path.read_bytes()

    return read


@contextlib.contextmanager
def serving(chain: Chain, host: str, port: int) -> Iterator[str]:
    """Serves the page and gives its address; what was uploaded is removed in the end.

    Raises ValueError where Gradio is not there or the chain can do nothing, OSError where the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="jaxslm-demo-") as folder:
        gradio = load_gradio(folder)
        page = build_page(chain, gradio, kept_in(Path(folder)))
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            share=False,
            ssr_mode=False,
            quiet=True,
            footer_links=[],
            max_file_size=MOST_BYTES,
            theme=gradio.themes.Default(**_FONTS),
            css=STYLE,
        )
        try:
            yield address
        finally:
            page.close(verbose=False)
