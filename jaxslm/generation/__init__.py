"""A trained model at work, in five lines:

from jaxslm.generation import load
chain = load("runs/spiritlm", acoustic="runs/soundstorm")
answer = chain.say("Tom opens the door", voice="prompt.wav")
answer.save("hello.wav")
print(answer.seconds)
"""


def load(workdir: str = "", *, acoustic: str = "", step: int | None = None, unmasking=None):
    """A `chain.Chain` of workdirs: of a language model, of an acoustic stage or vocoder, or both. step: of the former.

    unmasking: how a masked stage draws, such as {"guidance": 1.0}; see `acoustic.unmasking.Unmasking`.

    Raises ValueError for a folder that is no workdir of such a run, or whose units are not those of the other.
    """
    from jaxslm.tasks.opening import open_chain  # tasks know workdirs; their rooms lie above this one

    return open_chain(workdir, acoustic, step, unmasking or {})
