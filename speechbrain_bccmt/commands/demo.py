"""`bccmt demo`: serve the web page of a model on this machine, and open it."""

from __future__ import annotations

import contextlib
import functools
import http.server
import tempfile
import webbrowser
from pathlib import Path

import click

from speechbrain_bccmt.commands import inputs


class PageHandler(http.server.SimpleHTTPRequestHandler):
    """Request handler that serves the page in a folder, without a log."""

    # The system may map these to other types, with which browsers refuse to run scripts.
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".json": "application/json",
        ".svg": "image/svg+xml",
        ".webmanifest": "application/manifest+json",
    }

    def log_message(self, *arguments):
        """Write no log."""


def open_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Open a server for a folder, for this machine only; port 0 means any free port.

    Raises
    ------
    OSError
        If the port is in use or not permitted.
    """
    handler = functools.partial(PageHandler, directory=str(folder))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise OSError(
            f"--port {port} cannot be used ({error.strerror}): name another, or 0 for any that is free"
        ) from error


@click.command()
@inputs.model_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="Port; 0: any free one.",
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser.")
def demo(model, port, browser):
    """Open a web page that enrols, verifies and identifies speakers, and shows what the model attends to.

    This is the page of `bccmt export web`: the browser computes everything and keeps the voiceprints. The page is
    served to this machine only.
    """
    from speechbrain_bccmt.export.web import PAGE, check_page, export_web

    check_page(PAGE)  # before the long work
    with tempfile.TemporaryDirectory() as folder, open_server(Path(folder), port) as server:
        from speechbrain_bccmt.inference.model_folder import load_speaker_model

        loaded = load_speaker_model(model)
        export_web(loaded, folder, PAGE)
        if loaded.calibration is None:
            click.echo("The model ships no calibration: the page shows scores, and decides nothing.", err=True)
        address = f"http://localhost:{server.server_port}/"
        click.echo(f"The page is at {address} until you press Ctrl-C.")
        if browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C closes the page
            server.serve_forever()
