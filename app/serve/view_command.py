"""``view`` with its options parsed: a recording in 3D on a page of this machine."""

from __future__ import annotations

import threading
import webbrowser

from app.options import ViewOptions


def run_command(options: ViewOptions, stop: threading.Event) -> int:
    """Serve a recording's page until ``stop`` is set.

    Args:
        options: The command's options.
        stop: Ends it.

    Returns:
        The exit code.

    Raises:
        ConfigError: A wrong address or token.
        ExportError: The file is no recording, or has no people.
        OSError: The file cannot be read, or the address cannot be listened on.
    """
    try:
        from app.serve.connection import listen
        from app.serve.running import host_and_port, running, token_for
    except ModuleNotFoundError as error:
        raise RuntimeError(f"view needs {error.name}: pip install 'bodystream[serve]'") from None
    from app.exports.recording import read_recording
    from app.serve.viewing import create_view
    from app.view.frames import recording_file

    host, port = host_and_port(options.address)
    recording = recording_file(read_recording(options.poses))
    token = token_for(host, options.token)
    listening = listen(host, port)
    try:
        with running(create_view(recording, token), listening) as (url, thread):
            if options.browser:
                # In a thread of its own: a text browser would hold this one.
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
            while not stop.wait(0.2) and thread.is_alive():
                pass
    finally:
        listening.close()
    return 0
