"""How a command ends that cannot go on."""

import tempfile
import traceback


def last_words(error: BaseException) -> str:
    """Two lines for stderr: where the details lie, and `error: ` with the first line of the message.

    The traceback goes into a file; it takes the place of the first line if there is no room for one.
    """
    message = str(error) or type(error).__name__
    return f"{_details(''.join(traceback.format_exception(error)))}\nerror: {message.splitlines()[0]}"


def _details(text: str) -> str:
    try:
        handle, name = tempfile.mkstemp(prefix="jaxslm-error-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return text.rstrip()
    return f"details: {name}"
