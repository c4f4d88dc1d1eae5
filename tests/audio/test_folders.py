"""Recordings found in folders."""

import os

import pytest

from speechbrain_bccmt.audio.folders import find_recordings


def test_recordings_behind_links_are_found_once(tmp_path):
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    (corpus / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (corpus / "b.wav", corpus / "sub" / "a.OPUS", elsewhere / "c.mp3", corpus / "d.txt"):
        path.touch()
    (corpus / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(corpus)  # a circle
    (elsewhere / "twice").symlink_to(corpus / "sub")
    found = [os.path.relpath(path, corpus) for path in find_recordings(corpus)]
    assert sorted(found) == found and {os.path.basename(path) for path in found} == {
        "a.OPUS",
        "b.wav",
        "c.mp3",
    }
    assert found.count("link/c.mp3") == 1 and len(found) == 3
    with pytest.raises(FileNotFoundError, match=r"sub2: the folder holds no recording \(.wav"):
        (tmp_path / "sub2").mkdir()
        find_recordings(tmp_path / "sub2")


def test_folders_that_may_not_be_read_are_told(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.wav").touch()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="closed"):
        find_recordings(tmp_path)
