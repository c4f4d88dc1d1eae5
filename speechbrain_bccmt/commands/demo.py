"""`bccmt demo`: open a local web page that compares two recordings."""

from __future__ import annotations

import contextlib

import click

from speechbrain_bccmt.commands import inputs


@click.command()
@inputs.model_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="Port; 0: any that is free.",
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser.")
@inputs.vad_option
@inputs.device_option
def demo(model, port, browser, vad, device):
    """Open a local web page that compares two recordings.

    The page shows score, decision and attention maps, and is served to this machine only.
    """
    from speechbrain_bccmt.commands.page import build_page

    page = build_page(inputs.load_model(model, device, vad))
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C closes the page
        # gradio takes the first free port itself when it is given none.
        _, address, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port or None,
            inbrowser=browser,
            quiet=True,
            theme=page.theme,
            css=page.css,
            prevent_thread_lock=True,
        )
        click.echo(f"The page is at {address} until you press Ctrl-C.")
        page.block_thread()
