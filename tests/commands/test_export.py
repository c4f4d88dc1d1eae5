"""`bccmt export`: the speech that it calibrates on, and what it refuses before any work."""

import pytest
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.commands.export import _choose_speech
from speechbrain_bccmt.commands.inputs import expand_inputs


def test_speech_is_chosen_evenly_from_what_every_command_finds(tmp_path):
    for number in range(7):
        (tmp_path / f"{number}.wav").touch()
    (tmp_path / "notes.txt").touch()
    for named in ((str(tmp_path),), (str(tmp_path / "*.wav"),)):
        found = expand_inputs(named)
        assert [str(path) for path in _choose_speech(named, 100)] == found and len(found) == 7
        assert [path.name for path in _choose_speech(named, 3)] == ["0.wav", "2.wav", "4.wav"]
    with pytest.raises(ValueError, match="no recordings are named"):
        _choose_speech((), 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onnx", "out", "--int8", "static", "--speech", "gone.wav"], "gone.wav: there is no such file"),
        (["onnx", "out", "--int8", "static", "--speech", "no*match"], "no*match: matches no file"),
        (["onnx", "out", "--int8", "static", "--speech", "."], "holds no recording"),
        (["onnx", "out", "--int8", "static"], "--int8 static and --speech go together"),
        (["onnx", "out", "--speech", "a.wav"], "--int8 static and --speech go together"),
        (["onnx", "out", "--int8", "static", "--speech", "a.wav", "--utterances", "0"], "--utterances"),
        (["onnx", "out", "--int8", "dynamic", "--with-lengths"], "made without lengths"),
        (["hub", "out", "--calibration", "a.json", "--scores", "b.txt"], "not both"),
        (["hub", "out", "--push", "model"], "--push model: expected OWNER/MODEL"),
        (["hub"], "Missing argument 'OUT'"),
    ],
)
def test_misuse(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, ["export", *arguments, "-m", "model"])
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
