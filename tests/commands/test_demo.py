"""The page as `bccmt demo` serves it; what it does is tested in tests/web."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.export import web
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import CALIBRATION

SERVE = """
import sys
from speechbrain_bccmt import cli
from speechbrain_bccmt.export import web
web.PAGE = web.Path(sys.argv.pop(1))
cli.main()
"""


@pytest.fixture
def built(tmp_path):
    """Write a built page, as small as can be."""
    folder = tmp_path / "built"
    folder.mkdir()
    for name in ("index.html", "app.js", web.SERVICE_WORKER):
        (folder / name).write_text(f"content of {name}")
    (folder / web.LISTING).write_text(json.dumps({"shell": ["app.js", "index.html"], "packed": {}}))
    return folder


def test_the_page_of_a_model_is_served_until_ctrl_c(built, tmp_path):
    hub = write_hub_folder(tmp_path / "voices", CALIBRATION)
    command = [sys.executable, "-c", SERVE, str(built), "demo", "-m", str(hub), "--no-browser", "--port=0"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if os.name == "posix":  # a shell's background job ignores Ctrl-C, and so would its children
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, **options) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("The page is at http://localhost:"), line + process.stderr.read()
            address = line.split()[4]
            with urllib.request.urlopen(address) as response:
                assert response.read() == b"content of index.html"
            with urllib.request.urlopen(f"{address}app.js") as response:
                assert response.headers["Content-Type"] == "text/javascript"
            with urllib.request.urlopen(f"{address}config.json") as response:
                config = json.load(response)
            assert config["name"] == "voices" and config["attention"]["block"] == 4
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0 and errors == ""
        finally:
            process.kill()


def test_what_is_in_the_way_is_told_in_one_line(built, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "PAGE", tmp_path / "nothing")
    result = CliRunner().invoke(cli.main, ["demo"])
    assert result.exit_code == 2 and "npm run build" in result.stderr and result.stderr.count("\n") == 1
    monkeypatch.setattr(web, "PAGE", built)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(cli.main, ["demo", f"--port={port}"])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert f"--port {port} cannot be used" in result.stderr and "or 0 for any" in result.stderr
