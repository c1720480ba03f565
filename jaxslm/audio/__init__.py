SAMPLE_RATE = 16_000  # of all audio inside, in Hz
