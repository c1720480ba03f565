"""Unit HiFi-GAN at 16 kHz (Polyak et al. 2021; speech-resynthesis, configs/VCTK/hubert100_lut.json without its F0).

HuBERT units of 50 Hz, crops of 8,960 samples, MPD and MSD with least squares, mel distance times 45, feature matching
times 2, Adam (.8, .99) at 2e-4, falling by .999 an epoch: to 1.2e-4 over the 494 of 400,000 steps on LJSpeech. The
duration predictor is that of examples/speech_to_speech_translation there. The data are named on the command line, with
units in their manifest or by an inventory: --config.data.units="{'inventory': 'FOLDER'}"
--config.data.sources="{'speech': {'kind': 'manifest', 'path': 'FOLDER'}}".
"""

from configs import common


def get_config(arg: str = ""):
    config = common.unit_vocoder()
    config.data.units = dict(encoder="precomputed:hubert-base-ls960", layer=6, clusters=100, frame_rate=50.0, sha256="")
    for side in (config.optimizer.vocoder, config.optimizer.discriminators):
        side.update(schedule="exponential", final_lr=1.2e-4)
    if arg == "tiny":
        config.data.update(sources=common.demo_speech(), units=common.learned_units(), batch_size=8, seconds=0.56)
        config.model.generator = dict(channels=128)
        config.discriminators.kinds = dict(period=dict(channels=(4, 16, 64, 64)))
        for side in (config.optimizer.vocoder, config.optimizer.discriminators):
            side.update(peak_lr=1e-3, final_lr=5e-4)
        # Discriminators that know nothing yet would only disturb so short a run.
        config.losses.adversarial.update(start=200, delay=20)
        config.steps = 300
        config.checkpoint.every = 100
        config.eval.update(every=100, batches=2)
    elif arg:
        raise ValueError(f"unit_hifigan knows the size 'tiny', not {arg!r}")
    return config
