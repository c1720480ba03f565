"""Pieces that recipes share. A recipe starts from `speech_text_lm()` and changes what its paper changes.

Every value can be overridden on the command line: `--config.optimizer.peak_lr=1e-4`.
"""

from ml_collections import ConfigDict


def _run(task: str, every: int = 1000, **more) -> dict:
    """What every run has; checkpoints and evaluations are made `every` so many steps."""
    run = dict(
        task=task,
        seed=0,
        steps=1000,
        log_every=10,
        profile_steps="",  # "A:B": an XProf trace of these steps, into the workdir's profile/
        checkpoint=dict(every=every, keep=3),
        eval=dict(every=every, batches=8),  # batches of the held-out split, of each objective if there are several
        mesh=dict(data=-1, fsdp=1, tensor=1, sequence=1, rules=dict()),  # a -1 takes the devices that remain
    )
    return run | more


def _adam(**changes) -> dict:
    adam = dict(
        peak_lr=3e-4,
        final_lr=0.0,
        schedule="constant",  # constant | linear | cosine | exponential | inverse_sqrt
        warmup_steps=0,
        b1=0.9,
        b2=0.95,
        eps=1e-8,
        weight_decay=0.1,
        clip_norm=1.0,
        moment_dtype="float32",  # of the first moment: float32 | bfloat16
    )
    return adam | changes


def speech_text_lm() -> ConfigDict:
    """A decoder LM over text and speech units, with every key that the task reads."""
    return ConfigDict(
        _run(
            "speech_text_lm",
            init_from="",  # a workdir, an export of one, or a Hugging Face folder of the Llama family
            new_rows="mean_noise",  # embeddings that a Hugging Face model lacks: mean | mean_noise | random
            export=dict(every=0, dtype="bfloat16"),  # Hugging Face exports; every: a multiple of checkpoint.every
            samples=dict(
                utterances=3,
                temperature=0.8,
                top_k=0,
                top_p=0.95,
                text_tokens=50,
                speech_tokens=300,
                voice="",  # what speaks: the workdir of an acoustic stage; "quick": one learnt in a minute; "": none
            ),  # fmt: skip
            optimizer=_adam(
                accumulate_steps=1,
                z_loss=0.0,
                max_skipped=20,  # non-finite steps in a row before the run stops
            ),
            model=dict(
                d_model=512,
                n_layers=8,
                n_heads=8,
                n_kv_heads=8,
                d_ff=1376,
                head_dim=0,  # 0: d_model / n_heads
                rope_theta=0.0,  # 0: that of init_from, else 10,000
                rope_scaling=None,  # Llama-3's fields, see nn/rope.py
                norm_eps=1e-5,
                qkv_bias=False,
                output_bias=False,
                qk_norm=False,
                tied_embeddings=False,
                activation="silu",  # silu | gelu_tanh
                embedding_scale=1.0,
                dtype="bfloat16",  # of the computation; parameters are float32
                quantization="",  # of the layers' projections while training: "" | int8 | fp8; the extra `quantize`
                attention="auto",  # auto | splash | cudnn | blocked | xla, see nn/attention.py
                remat="none",  # full | dots | none | tensors to keep, such as context,host:query: see nn/remat.py
                scan_unroll=1,  # layers in one round of the loop over them; all: no loop
            ),
            loss_chunks=8,  # pieces the logits are made in
            eval=dict(every=1000, batches=8, suites=dict()),  # name -> likelihood suite, see evaluation/suites
            data=dict(
                sources=dict(),  # name -> what to read, see jaxslm/data/sources
                cache="~/.cache/jaxslm",
                text_tokens=0,  # of the tokenizer, for launch/plan.py where its files are not at hand; 0: not told
                tokenizer="byte",  # byte | none: speech alone | tokenizer.json | SentencePiece model | folder with one
                units=learned_units(),
                codec="",  # workdir of a codec or Hugging Face folder of one, for the objectives coarse and fine
                alignment="",  # where no word times are given: "pocketsphinx" (English), or "ctc:FOLDER" of a model
                max_seconds=60.0,
                sample_rate=16_000,  # of stored audio; units are of 16 kHz in any case
                context_length=1024,
                batch_size=8,  # rows over all devices
                mixture=dict(text=1 / 3, speech=1 / 3, interleaved=1 / 9, asr=1 / 9, tts=1 / 9),  # shares of tokens
                loss_weights=dict(text=1.0, speech=1.0, interleaved=1.0, asr=1.0, tts=1.0),
                spans=dict(text_words=(10, 30), speech_words=(5, 15)),
                acoustic=dict(coarse_levels=4, seconds=10.0, prompt_seconds=3.0),  # crops of coarse and fine
                workers=0,  # processes that make batches; 0: threads
                shuffle="",  # units | times: tears speech from text, an experiment that must fail (data/shuffled.py)
            ),
        )
    )


def learned_units() -> dict:
    """Units that are learned from the training clips: k-means of the features of an encoder's layer."""
    return dict(
        encoder="mfcc",  # or the folder of a speech model, or of an earlier run's inventory in `inventory`
        layer=None,  # of a speech model, to be named
        dtype="float32",  # of its computation; "bfloat16" is faster on accelerators, and other units
        crop=False,  # of Whisper: hears the clip alone instead of 30 s
        clusters=100,
        seed=0,
        max_fit_frames=200_000,  # that k-means learns from
        kmeans_batch=0,  # frames of a batch of mini-batch k-means; 0: all at once
        deduplicated=True,  # runs of equal units are one, with a duration; False: a unit for each frame
        inventory="",  # instead of learning: a folder, or the name of a published inventory (see units/published.py)
        centroids="",  # the file of a published or other quantizer
    )


def textless(config: ConfigDict) -> None:
    """Speech alone: the vocabulary is `<pad> <s> </s>` and the units, a sequence `<s>` units `</s>`."""
    config.data.tokenizer = "none"
    config.new_rows = "random"  # as in TWIST: the table of the text LM is replaced
    config.data.mixture.update(text=0.0, speech=1.0, interleaved=0.0, asr=0.0, tts=0.0)


def demo_data(config: ConfigDict) -> None:
    """The embedded corpus: sentences of a small grammar, spoken by espeak-ng, and more of them as text, if need be."""
    config.data.sources = dict(speech=dict(kind="demo", utterances=1200, seed=0, heldout=0.05))
    if config.data.tokenizer != "none":
        config.data.sources.text = dict(kind="demo_text", utterances=1200, seed=1, heldout=0.02)
        config.data.tokenizer = "byte"
    config.data.units = learned_units()


def tiny(config: ConfigDict) -> None:
    """The same code path at a size that two CPU cores train in minutes."""
    demo_data(config)
    config.init_from = ""
    config.model.update(d_model=192, n_layers=3, n_heads=2, n_kv_heads=2, d_ff=512, dtype="float32", remat="none")
    config.loss_chunks = 4
    config.data.update(context_length=384, batch_size=8)
    config.optimizer.update(peak_lr=3e-3, final_lr=3e-4, schedule="cosine", warmup_steps=20, accumulate_steps=1)
    config.steps = 280
    config.checkpoint.every = 70
    config.eval.update(every=70, batches=2)
    config.samples.voice = "quick"
    config.samples.text_tokens = 150  # bytes, where the full recipe counts pieces of words


def audiolm(*, stage: str, seconds: float, context_length: int, temperature: float) -> ConfigDict:
    """An acoustic stage of AudioLM: no text, units and codes of speech."""
    config = speech_text_lm()
    config.data.tokenizer = "none"
    config.data.mixture = {stage: 1.0}
    config.data.loss_weights = {stage: 1.0}
    config.data.acoustic.update(coarse_levels=4, seconds=seconds, prompt_seconds=3.0)
    config.steps = 1_000_000
    config.checkpoint.every = 5000
    config.eval.update(every=5000, batches=8)
    config.optimizer.update(peak_lr=5e-4, schedule="inverse_sqrt", warmup_steps=4000, b2=0.98, weight_decay=0.01)
    config.model.update(d_model=1024, n_layers=12, n_heads=16, n_kv_heads=16, d_ff=4096, remat="full")
    config.samples.update(temperature=temperature, top_p=1.0)
    if stage == "coarse":
        config.samples.voice = "quick"  # which learns the durations that units of a language model need
    config.data.update(
        sources=dict(librilight=dict(kind="manifest", path="data/librilight_60k/manifest.jsonl")),
        codec="data/soundstream_16k",  # a run of configs/soundstream_16k.py with 12 levels
        context_length=context_length,  # a crop of the longest kind
        batch_size=256,
    )
    # Units come with the manifest, which names the audio for the codec, too.
    config.data.units = dict(encoder="precomputed:w2v-bert-xl", layer=7, clusters=1024, frame_rate=25.0, sha256="")
    return config


def tiny_audiolm(config: ConfigDict, seconds: float) -> None:
    """The same code path at a size that two CPU cores train in minutes; a small codec is to be trained before."""
    tiny(config)
    config.data.update(codec="", batch_size=8)
    config.data.acoustic.update(seconds=seconds, prompt_seconds=seconds / 3)


def codec() -> ConfigDict:
    """A neural codec, with every key that the task reads; a recipe fills in model, losses and discriminators."""
    gan = dict(final_lr=3e-4, b1=0.5, b2=0.9, weight_decay=0.0, clip_norm=0.0)
    return ConfigDict(
        _run(
            "codec",
            every=5000,
            steps=400_000,
            init_from="",  # a workdir of the same codec, or a Hugging Face folder of EnCodec, DAC or Mimi
            export=dict(every=0),  # Hugging Face folders, of codecs that transformers has
            samples=dict(utterances=4),
            optimizer=dict(codec=_adam(**gan), discriminators=_adam(**gan), max_skipped=20),
            average_decay=0.0,  # of the mean of the codec's parameters that is evaluated and used; 0: none
            dtype="float32",  # of the computation; parameters and quantizers are float32
            model=dict(dim=512, encoder=dict(kind="seanet"), decoder=dict(kind="seanet"), quantizer=dict()),
            discriminators=dict(kinds=dict(stft=dict()), level=False),
            losses=dict(
                balance=False,  # True: weights are shares of the gradient's norm, else factors
                spectral=dict(mel=dict(weight=1.0, form="soundstream")),
                waveform=dict(weight=0.0, form="l1"),
                adversarial=dict(weight=1.0, form="hinge", average=True, start=0, delay=0),
                feature=dict(weight=100.0, form="relative"),
                commitment=1.0,
                codebook=0.0,
                # teacher: a folder, or "log_mel"; all_layers: the mean of its layers, with layer=-1
                distil=dict(weight=0.0, form="dimension", teacher="", layer=-1, all_layers=False),
            ),
            data=dict(
                sources=dict(),
                cache="~/.cache/jaxslm",
                alignment="",
                max_seconds=600.0,  # nothing has to be cut here, so the limit is only against mistakes
                sample_rate=16_000,
                seconds=1.0,  # of a crop
                batch_size=64,
                workers=0,
            ),
        )
    )


def acoustic() -> ConfigDict:
    """A masked acoustic stage, units to codes, with every key that the task reads."""
    return ConfigDict(
        _run(
            "acoustic",
            steps=300_000,
            every=5000,
            init_from="",  # a workdir of the same stage
            export=dict(every=0),
            samples=dict(utterances=3, guidance=0.0),
            optimizer=_adam(accumulate_steps=1, max_skipped=20),
            prompt_dropout=0.15,  # share of clips that learn without a prompt, for guidance
            model=dict(
                d_model=1024,
                n_layers=12,
                n_heads=16,
                d_ff=4096,
                conv_kernel=5,  # of Conformer's module in each layer; 0: none, a plain transformer
                rope_theta=1e4,
                norm_eps=1e-5,
                dtype="bfloat16",  # of the computation; parameters are float32
                remat="none",
            ),
            durations=dict(dim=128, hidden=128, kernel=3, dropout=0.5, spread=True),
            data=dict(
                sources=dict(),
                cache="~/.cache/jaxslm",
                codec="",  # workdir of a codec's run, or a Hugging Face folder of EnCodec, DAC or Mimi
                levels=0,  # of the codec, the first so many; 0: all
                units=learned_units(),
                alignment="",
                max_seconds=600.0,
                sample_rate=16_000,
                seconds=30.0,  # of a crop, and of the window that is filled in at once
                batch_size=32,
                workers=0,
            ),
        )
    )


def unit_vocoder() -> ConfigDict:
    """A unit vocoder, with every key that the task reads: that of speech-resynthesis, and a duration predictor."""
    adam = dict(peak_lr=2e-4, final_lr=2e-4, b1=0.8, b2=0.99, weight_decay=0.01, clip_norm=0.0)
    return ConfigDict(
        _run(
            "unit_vocoder",
            every=5000,
            steps=400_000,
            init_from="",  # a workdir of the same vocoder, which may know more speakers, or a published checkpoint
            export=dict(every=0),
            samples=dict(utterances=4),
            optimizer=dict(vocoder=_adam(**adam), discriminators=_adam(**adam), max_skipped=20),
            average_decay=0.0,  # of the mean of the parameters that is evaluated and used; 0: none
            dtype="float32",  # of the computation; parameters are float32
            model=dict(
                dim=128,  # of each embedding
                speakers=True,  # an embedding for each speaker of the training data; False: none
                generator=dict(),  # fields of acoustic/hifigan.py's GeneratorConfig
                durations=dict(hidden=128, kernel=3, dropout=0.5, spread=False),  # None: no predictor
            ),
            discriminators=dict(kinds=dict(period=dict(), scale=dict()), level=False),
            losses=dict(
                balance=False,
                spectral=dict(mel=dict(weight=45.0, form="log_mel", window=1024, hop=256, n_mels=80, framing="whole")),
                waveform=dict(weight=0.0, form="l1"),
                adversarial=dict(weight=1.0, form="least_squares", average=False, start=0, delay=0),
                feature=dict(weight=2.0, form="sum"),
                durations=1.0,
            ),
            data=dict(
                sources=dict(),
                cache="~/.cache/jaxslm",
                units=learned_units(),
                alignment="",
                max_seconds=60.0,
                sample_rate=16_000,
                seconds=0.56,  # of a crop
                batch_size=16,
                workers=0,
            ),
        )
    )


def encodec_network(**changes) -> dict:
    """EnCodec's encoder or decoder, as released."""
    network = dict(
        kind="seanet", n_filters=32, ratios=(2, 4, 5, 8), n_residual=1, residual_kernel=3, dilation_base=2, compress=2,
        true_skip=False, pad="reflect", lstm=2,
    )  # fmt: skip
    return network | changes


def balanced_losses(config: ConfigDict) -> None:
    """EnCodec's losses and discriminator (audiocraft, config/solver/compression/default.yaml)."""
    config.losses.update(
        balance=True,
        spectral=dict(mel=dict(weight=2.0, form="encodec")),
        waveform=dict(weight=0.1, form="l1"),
        adversarial=dict(weight=4.0, form="hinge", average=True, start=0, delay=0),
        feature=dict(weight=4.0, form="mean"),
        commitment=1.0,
    )
    config.discriminators.kinds = dict(stft=dict(windows=(1024, 2048, 512, 256, 128), slope=0.3))


def demo_speech() -> dict:
    """The embedded corpus, as audio."""
    return dict(speech=dict(kind="demo", utterances=200, seed=0, heldout=0.05))


def tiny_codec(config: ConfigDict) -> None:
    """The same code path at a size that two CPU cores train in minutes."""
    config.data.update(sources=demo_speech(), batch_size=8, seconds=0.5)
    config.discriminators.kinds = dict(stft=dict(windows=(1024, 256), channels=8))
    config.steps = 200
    # Discriminators that know nothing yet would only disturb so short a run.
    config.losses.adversarial.update(start=50, delay=50)
    config.checkpoint.every = 100
    config.eval.update(every=100, batches=1)


def shrink(config: ConfigDict, dim: int = 64, **fields) -> None:
    """Latents of `dim` features, and these fields in encoder and decoder."""
    config.model.dim = dim
    for part in (config.model.encoder, config.model.decoder):
        part.update(fields)
