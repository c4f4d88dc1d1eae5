"""The built page, of the sources as they are, and browsers to visit it; tests skip where it cannot be built."""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from speechbrain_bccmt.export.web import LISTING, PAGE, export_web
from speechbrain_bccmt.inference import SpeakerVerification
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from tests.web.serving import serve
from tests.web.visitor import CHROMIUM, FAKE, QUIET

WEB = Path(__file__).resolve().parents[2] / "web"
NO_NETWORK = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ENOTCACHED")


@contextlib.contextmanager
def alone(path: Path):
    """Hold a lock, so that one process at a time builds."""
    fcntl = pytest.importorskip("fcntl", reason="the page is built for tests on POSIX systems only")
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def npm(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["npm", *arguments], cwd=WEB, capture_output=True, text=True)


def newest(*paths: Path) -> float:
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return max(file.stat().st_mtime for file in files)


@pytest.fixture(scope="session")
def web() -> Path:
    """Install the dependencies of the folder `web`, build page and library, and give the folder."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("the page is built by Node.js: node and npm are not on the path")
    with alone(WEB / ".lock"):
        installed, lock = WEB / "node_modules" / ".package-lock.json", WEB / "package-lock.json"
        if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
            done = npm("ci")
            if done.returncode and NO_NETWORK.search(done.stderr):
                pytest.skip("npm cannot reach the registry, from where the page's dependencies come")
            assert done.returncode == 0, done.stderr
            os.utime(installed)
        sources = newest(WEB / "src", WEB / "build.mjs", WEB / "NOTICE.txt", lock)
        built = [PAGE / LISTING, WEB / "dist" / "index.js"]
        if not all(path.is_file() and path.stat().st_mtime > sources for path in built):
            done = npm("run", "build")
            assert done.returncode == 0, done.stdout + done.stderr
    return WEB


@pytest.fixture(scope="session")
def exported(web, tmp_path_factory) -> Path:
    """Export the page of the shipped model."""
    folder = tmp_path_factory.mktemp("page")
    export_web(load_speaker_model("tiny"), folder)
    return folder


@pytest.fixture(scope="module")
def model():
    return SpeakerVerification.from_hparams("tiny")


@pytest.fixture(scope="module")
def site(exported):
    with serve(exported) as server:
        yield server


@pytest.fixture(scope="module")
def speakers(speech_data, tmp_path_factory):
    """Write recordings of two speakers, five each: wav and flac, some at other rates than the model's."""
    folder = tmp_path_factory.mktemp("speakers")
    sides = []
    for source in sorted((speech_data / "speechocean762" / "wav").iterdir())[:2]:
        paths = []
        for number, opus in enumerate(sorted(source.glob("*/*"))[:5]):
            wav = soundfile.read(opus, dtype="float32")[0]
            up, down, ending = [(1, 1, "wav"), (1, 1, "flac"), (441, 160, "wav")][number % 3]
            paths.append(folder / f"{source.name}-{number}.{ending}")
            soundfile.write(paths[-1], resample_poly(wav, up, down), 16000 * up // down, subtype="PCM_16")
        sides.append(paths)
    return sides


@pytest.fixture(scope="module")
def opus(speech_data):
    """Give a recording that the browser decodes by a decoder of its own."""
    return sorted(speech_data.glob("speechocean762/wav/*/*/*.opus"))[3]


@pytest.fixture(scope="module")
def microphone(speech_data, tmp_path_factory):
    """Write ten seconds of the first speaker, for the browser's microphone."""
    source = min((speech_data / "speechocean762" / "wav").iterdir())
    parts = [soundfile.read(path, dtype="float32")[0] for path in sorted(source.glob("*/*"))[:4]]
    path = tmp_path_factory.mktemp("microphone") / "microphone.wav"
    soundfile.write(path, np.concatenate(parts), 16000, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def playwright():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright, microphone):
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM, args=[*QUIET, *FAKE, f"--use-file-for-fake-audio-capture={microphone}"]
    )
    yield browser
    browser.close()


@contextlib.contextmanager
def visitor(browser):
    """Someone who has never seen the page, and allows the microphone."""
    context = browser.new_context(accept_downloads=True, permissions=["microphone"])
    context.set_default_timeout(60000)
    yield context
    context.close()


@pytest.fixture
def newcomer(browser):
    with visitor(browser) as context:
        yield context


@pytest.fixture(scope="module")
def regular(browser):
    """Someone who has the page already."""
    with visitor(browser) as context:
        yield context


@pytest.fixture
def context(regular, site):
    """Give the regular visitor, with nobody enrolled."""
    yield regular
    for page in regular.pages:
        page.close()
    page = regular.new_page()
    page.goto(f"{site.address}NOTICE.txt")
    delete = """name => new Promise((resolve, reject) => Object.assign(indexedDB.deleteDatabase(name),
        {onsuccess: resolve, onerror: reject}))"""
    page.evaluate(delete, "bccmt-voiceprints")
    page.close()
