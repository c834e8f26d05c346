"""Names of pictures: files as they are, folders at any depth, patterns; each picture once, and never the results."""

import os

import pytest

from minimrcnn.data.folder import DataFolder
from minimrcnn.data.gather import gather_pictures
from minimrcnn.errors import DataError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of photos, and the current folder around it."""
    for name in (
        "a.jpg",
        "b.PNG",
        "notes.txt",
        "sub/a.jpg",
        "sub/deep/c.webp",
        ".hidden.jpg",
        "sub/phone.HEIC",
        "[1].jpg",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def names(found):
    return [one.name.as_posix() for one in found]


def test_a_folder_holds_pictures_at_any_depth(photos):
    found = gather_pictures(["photos"])
    assert names(found) == ["[1].jpg", "a.jpg", "b.PNG", "sub/a.jpg", "sub/deep/c.webp", "sub/phone.HEIC"]
    assert all(one.path == photos.relative_to(photos.parent) / one.name for one in found)
    for same in ("photos/", "./photos", str(photos), "photos/../photos"):
        assert names(gather_pictures([same])) == names(found)


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("photos/*.jpg", ["[1].jpg", "a.jpg"]),
        ("photos/**/*.jpg", ["[1].jpg", "a.jpg", "sub/a.jpg"]),
        ("photos/*/*.jpg", ["sub/a.jpg"]),
        ("*/sub/?.jpg", ["photos/sub/a.jpg"]),
        ("photos/*", ["[1].jpg", "a.jpg", "b.PNG"]),
        ("photos/*/../sub/a.jpg", ["sub/sub/a.jpg"]),  # of "..", under which a result would leave its folder, nothing
    ],
)
def test_a_pattern_keeps_the_folders_from_its_first_star_on(photos, pattern, expected):
    assert names(gather_pictures([pattern])) == expected
    assert names(gather_pictures([str(photos.parent / pattern)])) == expected


def test_a_file_is_taken_as_it_is(photos):
    assert names(gather_pictures(["photos/sub/a.jpg", "photos/notes.txt", "none.jpg", "photos/[1].jpg"])) == [
        "a.jpg", "notes.txt", "none.jpg", "[1].jpg",
    ]  # fmt: skip


def test_each_picture_comes_once(photos):
    os.symlink(photos / "a.jpg", photos.parent / "link.jpg")
    assert names(gather_pictures(["photos/a.jpg", "link.jpg", "photos/*.jpg", "photos/a.jpg"])) == ["a.jpg", "[1].jpg"]


def test_results_are_not_pictures(photos):
    assert "sub/a.jpg" not in names(gather_pictures(["photos"], without="photos/sub"))
    assert names(gather_pictures(["photos/sub/a.jpg"], without="photos/sub")) == ["a.jpg"]  # somebody named it


def test_results_beside_the_pictures_are_refused(photos):
    with pytest.raises(DataError, match="name another folder with -o"):
        gather_pictures(["photos"], without="photos")


def test_predicting_finds_the_photos_that_training_reads(tmp_path):
    for name in "a.JFIF b.jpe c.pbm d.avif e.jp2 f.tga g.png notes.txt".split():
        (tmp_path / name).write_bytes(b"")
    assert (
        names(gather_pictures([tmp_path])) == DataFolder(tmp_path).pictures and len(DataFolder(tmp_path).pictures) == 7
    )


@pytest.mark.parametrize("name", ["photos/*.gif", "empty", "photos/sub/deep/**/*.jpg"])
def test_nothing_there_is_said(photos, name):
    (photos.parent / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures there"):
        gather_pictures(["photos", name])
